//! Which notifications of nf_tables are worth a look.

use super::read::table_of;
use crate::kernel::netlink::wire::frame::Frame;
use crate::model::nft::OUR_TABLE;

/// NFNLGRP_NFTABLES.
pub(in crate::kernel) const GROUP: u32 = 7;

/// Whether it is about a table of our name. kube-proxy rewrites thousands of rules of its own at a time.
pub(in crate::kernel) fn concerns(frame: &Frame<'_>) -> bool {
    table_of(frame).is_some_and(|table| table == OUR_TABLE)
}
