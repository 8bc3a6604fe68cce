//! What passed between weft and the kernel, counted.

/// What went over the netlink sockets since they were opened, and what went wrong; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetlinkCounters {
    /// Batches of changes sent.
    pub batches: u64,
    /// Changes sent.
    pub messages: u64,
    /// Changes whose answer was lost.
    pub answers_lost: u64,
    /// Dumps repeated because the table changed meanwhile.
    pub dumps_repeated: u64,
    /// Dumps given up.
    pub dumps_failed: u64,
    /// Times that notifications were lost because they came faster than they were read.
    pub overruns: u64,
    /// Failures to wait for or read notifications.
    pub socket_errors: u64,
}
