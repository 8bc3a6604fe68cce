//! Ended at a hundred moments and started again: nobody notices.

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weft::lab::netns::prepare;

use crate::adoption::{pods, remote, streams};
use crate::cluster::{self, macs, public_ips};
use crate::sandbox::{batch, try_sh};
use crate::stage::{Facts, Stage, Witness, all_rows, difference, gateway, kernel, new_mac, until_kernel_has};
use crate::world::{DEVICES, World};

crate::tests![ended_a_hundred_times_at_random_moments_nobody_notices];

const PEERS: u32 = 1000;
/// Rounds that begin with empty tables, rounds with something to repair, rounds with nothing to do.
const ROUNDS: [u32; 3] = [20, 50, 30];
/// So many times more of the first two at most, until one was ended in the middle of its work: that is over in a few
/// milliseconds, and chance may miss it.
const PATIENCE: u32 = 5;

fn ended_a_hundred_times_at_random_moments_nobody_notices() {
    prepare().expect("sysctls");
    let mut world = World::with_peers(PEERS);
    world.api.put_node(cluster::peer(0));
    let remote = remote();
    let mut dice = Dice::new();
    // How long one takes from the start to the end of its first pass: the moments are all over this time.
    let (start, mut moments) = (Instant::now(), [0; 3]);
    world.spawn().until_ready();
    let whole = start.elapsed();
    world.take_agent().kill();
    println!("restart: ready after {whole:?}; seed {:#x}", dice.seed);

    let all = usize::try_from(PEERS * 6).expect("a number");
    let on = |kind: usize, round: u32, hit: u32| round < ROUNDS[kind] * if hit > 0 { 1 } else { PATIENCE };
    let mut round = 0;
    while on(0, round, moments[0]) {
        wipe();
        moments[0] += cut_short(&mut world, &mut dice, whole, all);
        round += 1;
    }
    let mut stage = Stage::in_world(world, PEERS);
    let pings = streams();

    end(&mut stage.world, &mut dice);
    let mut round = 0;
    while on(1, round, moments[1]) {
        disturb(&mut stage, &mut dice, round);
        let rows = all_rows(&stage.peers).len();
        moments[1] += cut_short(&mut stage.world, &mut dice, whole, rows);
        round += 1;
        if round % 10 == 0 {
            stage.world.spawn().until_ready();
            until_kernel_has(&all_rows(&stage.peers));
            end(&mut stage.world, &mut dice);
        }
    }
    stage.world.spawn().until_ready();
    until_kernel_has(&all_rows(&stage.peers));
    end(&mut stage.world, &mut dice);

    let witness = Witness::start();
    let rows = all_rows(&stage.peers).len();
    for _ in 0..ROUNDS[2] {
        moments[2] += cut_short(&mut stage.world, &mut dice, whole, rows);
    }
    stage.world.spawn().until_ready();
    let heard = witness.heard();
    assert!(heard.is_empty(), "a restart with nothing to do wrote: {heard:?}");
    difference(&kernel(), &all_rows(&stage.peers)).expect("the tables");
    assert_eq!(stage.world.agent().metrics().sum("weft_changes_total", &[]), 0.0);

    for (pod, stream) in pods().iter().zip(pings) {
        let tally = stream.stop();
        println!("restart: {} pings to {pod}, {} lost", tally.sent, tally.lost);
        assert!(tally.sent > 5000 && tally.lost == 0, "{tally:?}");
    }
    println!("restart: ended in the middle of a pass that writes {moments:?} times, of at least {ROUNDS:?}");
    assert!(moments[0] > 0 && moments[1] > 0, "never in the middle of a pass: {moments:?}");
    drop(remote);
}

/// Starts weft and ends it at a random moment, every second time soon after its first write. Returns 1 if that was
/// in the middle of work: it wrote, and not all.
fn cut_short(world: &mut World, dice: &mut Dice, whole: Duration, rows: usize) -> u32 {
    let witness = Witness::start();
    let moment = Instant::now() + whole.mul_f64(0.1 + dice.roll() * 0.9);
    world.spawn();
    let mut wrote = false;
    if dice.roll() < 0.5 {
        while !wrote && Instant::now() < moment {
            wrote = !witness.heard().is_empty();
            std::thread::sleep(Duration::from_micros(100));
        }
        // More often soon than late.
        std::thread::sleep(Duration::from_millis(30).mul_f64(dice.roll().powi(2)));
    } else {
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
    }
    end(world, dice);
    wrote |= !witness.heard().is_empty();
    u32::from(wrote && count() != rows)
}

/// Ends weft, gently or not. One that has only just begun may not know SIGTERM yet.
fn end(world: &mut World, dice: &mut Dice) {
    let agent = world.take_agent();
    if dice.roll() < 0.5 {
        let status = agent.terminate();
        assert!(status.success() || status.signal() == Some(nix::libc::SIGTERM), "{status}");
    } else {
        agent.kill();
    }
}

/// How many rows there are, without a look at them.
fn count() -> usize {
    let tables = ["ip -4 route show proto 119", "ip -6 route show proto 119", "ip neigh show nud permanent"];
    let lines = |line: &str| try_sh(line).expect("a table").lines().count();
    let fdb = DEVICES.map(|dev| lines(&format!("bridge fdb show dev {dev}")));
    tables.into_iter().map(lines).chain(fdb).sum()
}

/// Empty tables, an adopted device.
fn wipe() {
    for (dev, family) in DEVICES.into_iter().zip(["-4", "-6"]) {
        // Before the first agent got so far there is no device.
        let _ = try_sh(&format!("ip {family} route flush dev {dev} proto 119"));
        let _ = try_sh(&format!("ip {family} neigh flush dev {dev} nud permanent"));
    }
}

/// Things happen to peers other than the first, while weft is away.
fn disturb(stage: &mut Stage, dice: &mut Dice, round: u32) {
    let some = 2 + dice.below(PEERS - 400);
    match round % 5 {
        // The kernel lost rows.
        0 => {
            let (mut ip, mut bridge) = (String::new(), String::new());
            for number in some..some + 300 {
                let facts = &stage.peers[&number];
                for (family, dev) in [0, 1].into_iter().zip(DEVICES) {
                    let (cidr, mac) = (facts.cidrs[family].as_ref(), facts.macs[family].as_ref());
                    ip += &format!("route del {} dev {dev}\n", cidr.expect("a CIDR"));
                    ip += &format!("neigh del {} dev {dev}\n", gateway(number, family));
                    let to = facts.ips[family].as_ref().expect("an address");
                    bridge += &format!("fdb del {} dev {dev} dst {to} self\n", mac.expect("a MAC"));
                }
            }
            delete("ip", &ip);
            delete("bridge", &bridge);
        }
        // Many nodes change.
        1 => {
            for number in some..some + 200 {
                let mut facts = Facts::of(number);
                for family in [0, 1] {
                    let new = new_mac(number, family);
                    let old = stage.peers[&number].macs[family].as_ref() == Some(&new);
                    facts.macs[family] = Some(if old { macs(number)[family].clone() } else { new });
                }
                stage.put(number, facts);
            }
        }
        // Some leave.
        2 => {
            let leaving: Vec<u32> = stage.peers.keys().copied().filter(|number| *number >= some).take(100).collect();
            leaving.into_iter().for_each(|number| stage.delete(number));
        }
        // They come back.
        3 => (2..=PEERS)
            .filter(|number| !stage.peers.contains_key(number))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|number| stage.put(number, Facts::of(number))),
        // Somebody put rows in that lead nowhere.
        _ => {
            let (mut ip, mut bridge) = (String::new(), String::new());
            for number in 3000..3200 {
                let (to, mac) = (public_ips(number)[0], &macs(number)[0]);
                ip += &format!("neigh replace {} lladdr {mac} dev {} nud permanent\n", gateway(number, 0), DEVICES[0]);
                bridge += &format!("fdb replace {mac} dev {} dst {to} self permanent\n", DEVICES[0]);
            }
            batch("ip", &ip);
            batch("bridge", &bridge);
        }
    }
}

/// Deletes what is there; after the rounds before, some rows may not be.
fn delete(tool: &str, commands: &str) {
    let mut child = Command::new(tool)
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("to start a command");
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("to write the commands");
    child.wait().expect("an end");
}

/// Random numbers that can be had again with `WEFT_SEED`.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    fn new() -> Self {
        let asked = std::env::var("WEFT_SEED").ok().map(|text| text.trim_start_matches("0x").to_owned());
        let seed = asked.and_then(|text| u64::from_str_radix(&text, 16).ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0)) | 1;
        Self { seed, state: seed }
    }

    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        f64::from(u32::try_from(self.state >> 32).expect("32 bits")) / f64::from(u32::MAX)
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from((self.state >> 33) % u64::from(limit)).expect("small")
    }
}
