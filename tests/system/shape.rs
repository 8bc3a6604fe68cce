//! What weft makes for a peer is what flannel makes.

use crate::world::{World, pictures};

crate::tests![a_peer_gets_what_flannel_gives_it];

fn a_peer_gets_what_flannel_gives_it() {
    let mut world = World::with_peers(1);
    world.start();
    eprintln!("{:#?}", pictures());
    assert!(world.take_agent().terminate().success());
}
