//! What flannel leaves behind in the packet filter: its names, and each leftover as a value that prints
//! as the commands that take it away.
//!
//! Names, comments and tables are those of flannel since v0.20 (`pkg/trafficmngr` in its repository).

use std::fmt;

use super::addr::Family;

/// One of the two chains that flannel's iptables mode makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// `FLANNEL-POSTRTG` in `nat`: what is masqueraded.
    Masquerade,
    /// `FLANNEL-FWD` in `filter`: the pods' packets are accepted.
    Forward,
}

impl Chain {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Masquerade, Self::Forward];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Masquerade => "FLANNEL-POSTRTG",
            Self::Forward => "FLANNEL-FWD",
        }
    }

    /// The table that it is in.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Masquerade => "nat",
            Self::Forward => "filter",
        }
    }

    /// The built-in chain from which flannel jumps to it.
    pub const fn hook(self) -> &'static str {
        match self {
            Self::Masquerade => "POSTROUTING",
            Self::Forward => "FORWARD",
        }
    }

    /// The comment of the jump.
    pub const fn comment(self) -> &'static str {
        match self {
            Self::Masquerade => "flanneld masq",
            Self::Forward => "flanneld forward",
        }
    }
}

/// Which of the kernel's two packet filters holds a chain: they do not know each other's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// nftables, written by `iptables-nft`.
    Nft,
    /// The old one, written by `iptables-legacy`.
    Legacy,
}

impl Filter {
    /// What tells the programs of one from those of the other.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

/// Something of flannel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leftover {
    /// The table of its nftables mode: `flannel-ipv4` or `flannel-ipv6`.
    Table(Family),
    /// A chain of its iptables mode, with the jumps to it.
    Chain(Filter, Family, Chain),
}

impl Leftover {
    /// Which family's packets it is about.
    pub const fn family(&self) -> Family {
        match self {
            Self::Table(family) | Self::Chain(_, family, _) => *family,
        }
    }
}

/// The name of the table of flannel's nftables mode.
pub const fn table_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "flannel-ipv4",
        Family::V6 => "flannel-ipv6",
    }
}

/// A leftover as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What.
    pub what: Leftover,
    /// Jumps to it in the form that flannel writes; 0 for a table.
    pub jumps: usize,
    /// Chains with a rule of somebody else that jumps to it: while there are any it cannot go.
    pub users: Vec<String>,
    /// Whether packets that it accepts would be stopped without it: the built-in chain's policy is DROP, or
    /// rules stand behind the jump.
    pub guards: bool,
}

/// Displays as the command that removes a table, or the three that remove a chain, in one line.
impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(Family::V4) => write!(f, "nft delete table ip {}", table_name(Family::V4)),
            Self::Table(Family::V6) => write!(f, "nft delete table ip6 {}", table_name(Family::V6)),
            Self::Chain(filter, family, chain) => {
                let six = if *family == Family::V6 { "6" } else { "" };
                let (name, hook, comment) = (chain.name(), chain.hook(), chain.comment());
                let program = format!("ip{six}tables-{} -w -t {}", filter.label(), chain.table());
                write!(f, "{program} -D {hook} -m comment --comment '{comment}' -j {name}; ")?;
                write!(f, "{program} -F {name}; {program} -X {name}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_print_as_commands() {
        assert_eq!(Leftover::Table(Family::V6).to_string(), "nft delete table ip6 flannel-ipv6");
        assert_eq!(
            Leftover::Chain(Filter::Legacy, Family::V6, Chain::Forward).to_string(),
            "ip6tables-legacy -w -t filter -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD; \
             ip6tables-legacy -w -t filter -F FLANNEL-FWD; ip6tables-legacy -w -t filter -X FLANNEL-FWD"
        );
    }
}
