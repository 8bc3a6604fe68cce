//! Who reaches whom, and with which source address: with flannel's packet rules and with weft's, beside kube-proxy's.
//! docs/who-reaches-whom.md has the tables that these tests measure.

mod kube_proxy;
mod table;
mod town;

use self::kube_proxy::Mode;
use self::table::Reach;
use self::town::Town;

crate::tests![
    weft_and_flannel_show_the_same_source_addresses,
    it_is_the_same_beside_kube_proxys_nftables_mode,
    a_forward_that_drops_needs_two_rules_by_hand,
    a_take_over_where_forward_drops_leaves_flannels_accept,
    flannels_nftables_mode_loses_some,
    what_is_excluded_sees_pods,
];

const FLANNEL: &str = "iptables-nft";

fn weft_and_flannel_show_the_same_source_addresses() {
    let mut town = Town::with_flannel("same", FLANNEL, Mode::Iptables);
    let flannel = Reach::measure(&town);
    town.over(&[], "");
    let weft = Reach::measure(&town);
    weft.must_be(&flannel, "weft, and flannel in iptables mode");
    weft.must_be_documented("Where FORWARD accepts");
}

fn it_is_the_same_beside_kube_proxys_nftables_mode() {
    let mut town = Town::with_flannel("proxy-nft", FLANNEL, Mode::Nftables);
    let flannel = Reach::measure(&town);
    town.over(&[], "");
    let weft = Reach::measure(&town);
    weft.must_be(&flannel, "weft, and flannel in iptables mode, with kube-proxy in nftables mode");
    weft.must_be_documented("Where FORWARD accepts");
}

fn a_forward_that_drops_needs_two_rules_by_hand() {
    let mut town = Town::with_flannel("drop", FLANNEL, Mode::Iptables);
    let accepting = Reach::measure(&town);
    town.policy("DROP");
    Reach::measure(&town).must_be(&accepting, "flannel where FORWARD drops, and where it accepts");
    town.policy("ACCEPT");
    town.over(&[], "");
    town.policy("DROP");
    Reach::measure(&town).must_be_documented("Where FORWARD drops");
    town.forward_by_hand();
    Reach::measure(&town).must_be(&accepting, "weft with the two rules by hand, and flannel");
}

fn a_take_over_where_forward_drops_leaves_flannels_accept() {
    let mut town = Town::with_flannel("over-drop", FLANNEL, Mode::Iptables);
    let flannel = Reach::measure(&town);
    town.policy("DROP");
    town.over(&[], "FLANNEL-FWD");
    Reach::measure(&town).must_be(&flannel, "weft beside FLANNEL-FWD, and flannel");
}

fn flannels_nftables_mode_loses_some() {
    let mut town = Town::with_flannel("nft", "nft", Mode::Iptables);
    let flannel = Reach::measure(&town);
    town.over(&[], "");
    let weft = Reach::measure(&town);
    assert_eq!(
        flannel.differences(&weft),
        [
            "node 1 by its address to pod 2: node 1, not VTEP 1",
            "host beside to pod 2: –, not VTEP 1",
            "host beyond to pod 2: –, not VTEP 1"
        ]
    );
    weft.must_be_documented("Where FORWARD accepts");
}

fn what_is_excluded_sees_pods() {
    let mut town = Town::with_flannel("exclude", FLANNEL, Mode::Iptables);
    town.route_straight();
    let flannel = Reach::measure(&town);
    town.over(&town.beside(), "");
    let seen = Reach::measure(&town).differences(&flannel);
    assert_eq!(seen, ["pod 1 to host beside: pod 1, not node 1", "pod 2 to host beside: pod 2, not node 2"]);
}
