//! Whether a chain of somebody else surely drops the pods' packets, which weft cannot cure: what one table accepts,
//! another may still drop.
//!
//! A false alarm is worse than silence. So a chain counts only if each of its rules that accepts does so under a condition
//! that a new packet from a pod here to one elsewhere, or the other way, surely does not meet.

use crate::model::addr::{Family, Subnet};
use crate::model::forward::{Condition, DropChain, End, Passage, Place};
use crate::model::nft::TableFamily;

/// Jumps within jumps beyond this (the kernel's own limit is 16) are not followed.
const DEPTH: u32 = 16;

/// Whether no rule of the chain can accept a pod's packet to or from another node. `elsewhere` says whether such a packet
/// surely does not pass an interface.
pub fn stops(chain: &DropChain, elsewhere: &dyn Fn(&str) -> bool) -> bool {
    !may_accept(chain, &chain.rules, elsewhere, DEPTH)
}

fn may_accept(chain: &DropChain, rules: &[Passage], elsewhere: &dyn Fn(&str) -> bool, depth: u32) -> bool {
    let may_hold = |condition: &Condition| match condition {
        Condition::In(name) | Condition::Out(name) => !elsewhere(name),
        Condition::NotNew | Condition::MarkedByKubeProxy => false,
        Condition::Other => true,
    };
    let may_match = |rule: &&Passage| rule.conditions.iter().all(may_hold);
    rules.iter().filter(may_match).any(|rule| match &rule.end {
        End::Accepts | End::Unknown => true,
        End::Refrains => false,
        End::Goes(to) => match chain.chains.get(to) {
            Some(rules) if depth > 0 => may_accept(chain, rules, elsewhere, depth - 1),
            // Deeper than can be, or a chain that was not seen.
            _ => true,
        },
    })
}

/// What is wrong and what to do.
pub fn problem(place: &Place, family: Family, network: Subnet) -> String {
    let six = if family == Family::V6 { "6" } else { "" };
    let by = |program: &str| {
        let insert = |flag: &str| format!("{program} -I FORWARD {flag} {network} -j ACCEPT");
        format!("{}; {}", insert("-s"), insert("-d"))
    };
    let (what, cure) = match place {
        Place::Legacy(_) => ("FORWARD of iptables-legacy".to_owned(), by(&format!("ip{six}tables-legacy"))),
        Place::Nft(table, chain)
            if chain == "FORWARD" && table.name == "filter" && table.family != TableFamily::Inet =>
        {
            (format!("FORWARD of ip{six}tables"), by(&format!("ip{six}tables")))
        }
        Place::Nft(table, chain) => {
            let ip = TableFamily::from(family).label();
            let insert = |field: &str| format!("nft insert rule {table} {chain} {ip} {field} {network} accept");
            (format!("{chain} of the nftables table {table}"), format!("{}; {}", insert("saddr"), insert("daddr")))
        }
    };
    format!(
        "the chain {what} drops forwarded packets by its policy, and no rule there accepts the pods': pods here reach none on \
         other nodes over {family}, and a table of weft's own cannot overrule it; `{cure}`, and the same where that policy is \
         set (Docker, an administrator's ruleset)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::nft::TableName;

    fn rule(conditions: &[Condition], end: End) -> Passage {
        Passage { conditions: conditions.to_vec(), end }
    }

    fn chain(rules: Vec<Passage>, others: &[(&str, Vec<Passage>)]) -> DropChain {
        let chains = others.iter().map(|(name, rules)| ((*name).to_owned(), rules.clone())).collect();
        DropChain { place: Place::Legacy(Family::V4), rules, chains }
    }

    fn stops_pods(rules: Vec<Passage>, others: &[(&str, Vec<Passage>)]) -> bool {
        stops(&chain(rules, others), &|name| name == "docker0")
    }

    fn goes(to: &str) -> End {
        End::Goes(to.to_owned())
    }

    #[test]
    fn what_docker_and_kube_proxy_accept_is_not_the_pods() {
        let docker = || Condition::In("docker0".to_owned());
        let kube = vec![
            rule(&[Condition::MarkedByKubeProxy], End::Accepts),
            rule(&[Condition::NotNew], End::Accepts),
            rule(&[Condition::Other], End::Refrains),
        ];
        let rules = vec![
            rule(&[], goes("KUBE-FORWARD")),
            rule(&[Condition::Out("docker0".to_owned()), Condition::NotNew], End::Accepts),
            rule(&[docker(), Condition::Other], End::Accepts),
            rule(&[docker()], goes("unseen")),
        ];
        assert!(stops_pods(rules, &[("KUBE-FORWARD", kube)]));
        assert!(stops_pods(vec![], &[]));
    }

    #[test]
    fn what_may_be_the_pods_is_no_alarm() {
        for (conditions, end) in [
            (vec![], End::Accepts),
            (vec![Condition::Other], End::Accepts),
            (vec![Condition::In("cni0".to_owned())], End::Accepts),
            (vec![Condition::Other], End::Unknown),
            (vec![], goes("unseen")),
            (vec![], goes("again")),
            (vec![], goes("accepts")),
        ] {
            let again = vec![rule(&[], goes("again"))];
            let accepts = vec![rule(&[Condition::Out("flannel.1".to_owned())], End::Accepts)];
            let rules = vec![rule(&[], End::Refrains), rule(&conditions, end.clone())];
            assert!(!stops_pods(rules, &[("again", again), ("accepts", accepts)]), "{conditions:?} {end:?}");
        }
    }

    #[test]
    fn the_cure_is_for_the_program_that_made_the_chain() {
        let network = "10.244.0.0/16".parse().expect("a subnet");
        let say = |place| problem(&place, Family::V4, network);
        let legacy = say(Place::Legacy(Family::V4));
        assert!(
            legacy.contains("`iptables-legacy -I FORWARD -s 10.244.0.0/16 -j ACCEPT; iptables-legacy -I FORWARD -d")
        );
        let docker = say(Place::Nft(TableName::new(Family::V4, "filter"), "FORWARD".to_owned()));
        assert!(docker.contains("`iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT; "), "{docker}");
        let own = say(Place::Nft(TableName::new(TableFamily::Inet, "mine"), "fwd".to_owned()));
        let cure =
            "`nft insert rule inet mine fwd ip saddr 10.244.0.0/16 accept; nft insert rule inet mine fwd ip daddr";
        assert!(own.contains(cure), "{own}");
    }
}
