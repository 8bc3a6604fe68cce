//! The tour: builds, shows, breaks, and tells.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::Options;
use super::addressing::{Addressing, Prefixed, name};
use super::breakage::{self, Wound};
use super::heal::{self, Traffic};
use super::outcome::{Outcome, Scene, time};
use super::rows::{self, Row};
use super::stage::{Stage, Trouble};
use crate::model::addr::Family;
use crate::model::settings::Backend;
use crate::model::table::{Entry, Tables};

/// The narrator; silent if a program listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    /// Whether anything is said.
    pub(super) on: bool,
}

impl Voice {
    /// Says a line, or several.
    pub(super) fn say(self, text: &str) {
        if self.on {
            // A reader that has gone away does not end the tour: its exit code may still matter.
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }
}

/// Goes through everything; the stage is left standing for who wants to look inside.
pub(super) fn run(options: Options, directory: &Path, voice: Voice) -> (Option<Stage>, Outcome) {
    let begun = Instant::now();
    let mut outcome = Outcome { nodes: options.nodes, stack: options.stack, ..Outcome::default() };
    let addressing = Addressing { stack: options.stack, segments: options.segments };
    let built = Stage::build(addressing, Path::new("/proc/self/exe"), directory, options.logs);
    let mut stage = match built.and_then(|stage| stage.with(options.backend)) {
        Ok(stage) => stage,
        Err(trouble) => {
            outcome.problem = Some(trouble.to_string());
            return (None, outcome);
        }
    };
    let mut tour = Tour { stage: &mut stage, outcome: &mut outcome, options, voice };
    if let Err(trouble) = tour.go() {
        outcome.problem = Some(trouble.to_string());
    }
    outcome.took = begun.elapsed();
    (Some(stage), outcome)
}

struct Tour<'a> {
    stage: &'a mut Stage,
    outcome: &'a mut Outcome,
    options: Options,
    voice: Voice,
}

/// What the first chapter draws.
fn picture(addressing: Addressing, backend: Backend, device: &str) -> String {
    let ip = |of: Vec<Prefixed>| of.first().map(|(ip, _)| ip.to_string()).unwrap_or_default();
    let [one, two] = [1, 2].map(|number| format!("{}  {}", name(number), ip(addressing.machine(number))));
    let [pod, other] = [1, 2].map(|number| format!("pod {}", ip(addressing.inside(number, 2))));
    let way = match backend {
        Backend::Vxlan => format!(
            "   │      └─ {:═<13}╪═══ UDP ═══╪═════ {device:16}│   … node-3, …\n   \
                │           └─ eth0 ───┼───────────┼──── eth0             │\n",
            format!("{device} "),
        ),
        Backend::HostGw => "   │      └─ eth0 ════════╪═══════════╪══════ eth0           │   … node-3, …\n".to_owned(),
    };
    format!(
        "\n    {one:31}    {two}\n   \
            ┌──────────────────────┐           ┌──────────────────────┐\n   \
            │ {pod:20} │           │ {other:20} │\n   \
            │  └─ cni0             │           │  └─ cni0             │\n\
         {way}   └──────────────────────┘           └──────────────────────┘\n"
    )
}

impl Tour<'_> {
    fn go(&mut self) -> Result<(), Trouble> {
        self.build()?;
        self.show()?;
        self.voice.say("\n3. Everybody pings every pod\n");
        self.ping()?;
        self.wounds()?;
        self.moves()?;
        self.joins()?;
        self.returns()?;
        self.leaves()?;
        self.alone()?;
        self.voice.say("\n7. And once more, everybody pings every pod\n");
        self.ping()
    }

    fn build(&mut self) -> Result<(), Trouble> {
        let last = self.options.nodes;
        let wires = if self.options.segments > 1 { "two wires, a router in between" } else { "one wire" };
        let addressing = self.stage.underlay.addressing();
        let device = self.stage.device(self.family()).map(ToString::to_string).unwrap_or_default();
        let picture = picture(addressing, self.options.backend, &device);
        let work = match self.options.backend {
            Backend::Vxlan => format!("whatever is between {device} and {device}\n   is its work."),
            Backend::HostGw => "the routes from eth0 to eth0 are its\n   work.".to_owned(),
        };
        self.voice.say(&format!(
            "1. {last} machines on {wires}\n{picture}\n   \
             Each machine is a network namespace. The cluster is an API server in memory with a Node object for\n   \
             each. On each machine runs `weft run`, as in production; {work}\n"
        ));
        let begun = Instant::now();
        for number in 1..=last {
            self.stage.add_machine(number)?;
            self.stage.add_node(number);
            self.stage.start_agent(number)?;
        }
        self.stage.settle()?;
        self.outcome.built = begun.elapsed();
        for number in 1..=last {
            let at = join(&addressing.machine(number), |(ip, _)| ip.to_string());
            let cidrs = join(&addressing.pod_cidrs(number), |(ip, len)| format!("{ip}/{len}"));
            self.voice.say(&format!("   {:8}  at {at}, its pods in {cidrs}", name(number)));
        }
        self.voice.say(&format!("\n   From nothing to every table right: {}.", time(self.outcome.built)));
        Ok(())
    }

    /// What node-2 has announced, and what node-1 has made of it, with what each row is for.
    fn show(&mut self) -> Result<(), Trouble> {
        self.voice.say("\n2. What the agents did\n\n   node-2 has announced itself, in the annotations of its Node:\n");
        let node = self.stage.server.node(&name(2)).unwrap_or_default();
        for (key, value) in node["metadata"]["annotations"].as_object().into_iter().flatten() {
            self.voice.say(&format!("     {key}: {}", value.as_str().unwrap_or_default()));
        }
        self.voice.say(match self.options.backend {
            Backend::Vxlan => "\n   node-1 has made its device, and for node-2 three rows that lead a packet there:\n",
            Backend::HostGw => "\n   node-1 has no device for it, and for node-2 one row that leads a packet there:\n",
        });
        let sight = self.stage.look(1)?;
        let tunnel = sight.host.links.iter().any(|link| link.name.as_str().starts_with("flannel"));
        if tunnel != (self.options.backend == Backend::Vxlan) {
            return Err(Trouble::Unproven(format!("node-1 has a device for a tunnel: {tunnel}")));
        }
        for family in self.families() {
            let device = sight.host.links.iter().find(|link| Some(&link.name) == self.stage.device(family));
            if let Some(link) = device {
                let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
                self.voice.say(&format!("     device     {} address {mac} mtu {}", link.name, link.mtu));
            }
            let rows = rows::peer(&node, family).into_iter().flatten().filter(|row| sight.rows.contains(row));
            let rows: Vec<(Row, String)> = rows.map(|row| (row, row.to_string())).collect();
            let width = rows.iter().map(|(_, text)| text.len()).max().unwrap_or_default();
            for (row, text) in rows {
                let why = match row {
                    Row::Direct(..) => "its pods are behind that machine.",
                    Row::Route(..) => "its pods are behind its end of the tunnel,",
                    Row::Neighbour(..) => "that end has this MAC,",
                    Row::Fdb(..) => "and this MAC is at this machine: send it there, in UDP.",
                };
                self.voice.say(&format!("     {text:width$}  {why}"));
            }
        }
        Ok(())
    }

    fn ping(&mut self) -> Result<(), Trouble> {
        let count = self.stage.ping_all()?;
        self.outcome.pings += count;
        self.voice
            .say(&format!("   {count} of {count} pings were answered, from every pod and every machine to every pod."));
        Ok(())
    }

    fn wounds(&mut self) -> Result<(), Trouble> {
        self.voice.say(
            "\n4. Somebody breaks node-1, while its pod pings node-2's pod a thousand times a second\n\n   \
             No one tells the agent; it hears the kernel. Pings to node-3 must not notice what is node-2's.\n",
        );
        for family in self.families() {
            for wound in Wound::all(self.options.backend) {
                let scene = breakage::inflict(self.stage, family, *wound, self.options.nodes > 2)?;
                self.tell(scene);
            }
        }
        Ok(())
    }

    /// Direct routing, and a node that changes its network: to node-1's and back.
    fn moves(&mut self) -> Result<(), Trouble> {
        if self.options.segments < 2 {
            return Ok(());
        }
        self.voice.say(
            "\n   And a node changes its network. node-1 sends packets for a node on its own wire straight there, with\n   \
             no tunnel; the way through the tunnel stays in place under it. What node-1 has for node-2:\n",
        );
        self.ways()?;
        for family in self.families() {
            for (segment, what) in [(1, "node-2 moves to node-1's wire"), (2, "node-2 moves back")] {
                let beside = (self.options.nodes > 2).then_some((1, 3));
                let traffic = Traffic { through: (1, 2), beside, family };
                let what = self.stage.of_family(what, family);
                let scene = heal::measure(self.stage, &what, traffic, None, |stage| stage.move_machine(2, segment))?;
                let lost = scene.through.lost;
                self.tell(scene);
                if lost > 0 {
                    return Err(Trouble::Unproven(format!("`{what}` cost {lost} pings")));
                }
                self.ways()?;
            }
        }
        Ok(())
    }

    /// What node-1 has for node-2's pods, the first that the kernel takes first.
    fn ways(&mut self) -> Result<(), Trouble> {
        let cidrs = self.stage.underlay.addressing().pod_cidrs(2);
        let sight = self.stage.look(1)?;
        for entry in sight.host.tables.iter().filter_map(|(_, tables)| tables.as_ref()).flat_map(Tables::entries) {
            if let Entry::Route(key, route) = entry
                && cidrs.iter().any(|(base, _)| *base == key.dst.base())
                && let Some(via) = route.via
            {
                let device = self.stage.device(key.dst.family()).filter(|_| route.dev.is_none());
                let how = device.map(|device| format!(" dev {device} onlink")).unwrap_or_default();
                self.voice.say(&format!("     route      {} via {via}{how} metric {}", key.dst, key.metric));
            }
        }
        self.voice.say("");
        Ok(())
    }

    /// A new node.
    fn joins(&mut self) -> Result<(), Trouble> {
        let new = self.guest();
        self.voice.say("\n5. Nodes come and go\n\n   The pings begin before the agent of a new node: until it is there, nobody answers.\n");
        self.stage.add_machine(new)?;
        self.stage.add_node(new);
        let what = format!("{} joins: its agent starts", name(new));
        let traffic = Traffic::between(1, new, self.family());
        let scene = heal::measure(self.stage, &what, traffic, None, |stage| stage.start_agent(new))?;
        self.tell(scene);
        Ok(())
    }

    /// A known node that is installed anew: nothing of it is left but its name and its pod CIDR.
    fn returns(&mut self) -> Result<(), Trouble> {
        let family = self.family();
        let announced = |stage: &Stage| rows::peer(&stage.server.node(&name(2))?, family);
        let before = announced(self.stage);
        self.stage.stop_agent(2)?;
        breakage::wipe(self.stage, 2)?;
        self.stage.server.delete_node(&name(2));
        self.stage.add_node(2);
        self.stage.settle()?;
        let tunnel = self.options.backend == Backend::Vxlan;
        let other = if tunnel { ", with another MAC" } else { "" };
        let what = format!("{} is installed anew{other}: its agent starts", name(2));
        let traffic = Traffic::between(1, 2, family);
        let scene = heal::measure(self.stage, &what, traffic, None, |stage| stage.start_agent(2))?;
        if tunnel && announced(self.stage) == before {
            return Err(Trouble::Unproven("node-2 was installed anew but announces its old MAC".to_owned()));
        }
        self.tell(scene);
        Ok(())
    }

    /// A node that goes for good.
    fn leaves(&mut self) -> Result<(), Trouble> {
        let new = self.guest();
        let what = format!("{} leaves: its Node is deleted", name(new));
        self.stage.stop_agent(new)?;
        let traffic = Traffic::between(1, 2, self.family());
        let scene = heal::measure(self.stage, &what, traffic, None, |stage| {
            stage.server.delete_node(&name(new));
            Ok(())
        })?;
        self.stage.remove_machine(new)?;
        if scene.through.lost > 0 {
            return Err(Trouble::Unproven(format!("a node that left cost others {} pings", scene.through.lost)));
        }
        self.tell(scene);
        Ok(())
    }

    /// Healing needs no API server.
    fn alone(&mut self) -> Result<(), Trouble> {
        self.voice.say("\n6. The API server goes away; the tables stay, and are still looked after\n");
        self.stage.stop_server();
        let family = self.family();
        let mut scene = breakage::inflict(self.stage, family, Wound::Route, self.options.nodes > 2)?;
        self.stage.resume_server()?;
        scene.what += ", no API server";
        self.tell(scene);
        Ok(())
    }

    fn tell(&mut self, scene: Scene) {
        let did = scene.command.as_ref().map_or_else(|| scene.what.clone(), |command| format!("# {command}"));
        let (lost, sent) = (scene.through.lost, scene.through.sent);
        self.voice.say(&format!("   {did}\n      right after {}; {lost} of {sent} pings lost", time(scene.healed)));
        self.outcome.scenes.push(scene);
    }

    /// The node that joins and leaves.
    const fn guest(&self) -> u8 {
        self.options.nodes + 1
    }

    /// The one that is shown where one is enough.
    fn family(&self) -> Family {
        if self.options.stack.has(Family::V4) { Family::V4 } else { Family::V6 }
    }

    fn families(&self) -> Vec<Family> {
        self.stage.underlay.addressing().families().collect()
    }
}

fn join(all: &[Prefixed], text: impl Fn(&Prefixed) -> String) -> String {
    all.iter().map(text).collect::<Vec<_>>().join(" and ")
}
