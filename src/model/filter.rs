//! What the packet filter is configured with.

use super::addr::Subnet;

/// `--ip-masq` and its companions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// `--ip-masq-exclude`: destinations that see the pods' own addresses.
    pub exclude: Vec<Subnet>,
    /// A random source port for each connection; off with `--ip-masq-fully-random-disable`.
    pub fully_random: bool,
}

/// `--vtep-filter`: what becomes of VXLAN packets from addresses that are no node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VtepFilter {
    /// They are delivered, as Linux does.
    #[default]
    Off,
    /// They are counted and delivered.
    Audit,
    /// They are counted and dropped.
    Enforce,
}

impl VtepFilter {
    /// The flag's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

/// The packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterRules {
    /// Masquerading, if it is on.
    pub masquerade: Option<Masquerade>,
    /// Who may send us VXLAN.
    pub vteps: VtepFilter,
}
