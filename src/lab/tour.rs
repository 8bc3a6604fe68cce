//! The tour: builds, shows, breaks, and tells.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::Options;
use super::breakage::{self, Wound};
use super::heal::{self, Traffic};
use super::outcome::{Outcome, time};
use super::ping::Tally;
use super::rows::{self, Row};
use super::stage::{Stage, Trouble};
use super::topology::{Addressing, name};
use crate::model::addr::Family;

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
    let mut outcome = Outcome { nodes: options.nodes, dual_stack: options.dual_stack, ..Outcome::default() };
    let addressing = Addressing { dual_stack: options.dual_stack };
    let mut stage = match Stage::build(addressing, Path::new("/proc/self/exe"), directory, options.logs) {
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

impl Tour<'_> {
    fn go(&mut self) -> Result<(), Trouble> {
        self.build()?;
        self.show()?;
        self.ping()?;
        self.wounds()?;
        self.lives()?;
        self.alone()?;
        self.ping()
    }

    fn families(&self) -> Vec<Family> {
        self.stage.underlay.addressing().families().collect()
    }

    fn build(&mut self) -> Result<(), Trouble> {
        let last = self.options.nodes;
        self.voice.say(&format!(
            "\n1. {last} machines on one wire\n\
             \n   Each is a network namespace with an address on 192.168.174.0/24, and has one pod.\n   \
             A Kubernetes API server in memory holds their Node objects. On each runs `weft run`, as in production.\n"
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
            let addressing = self.stage.underlay.addressing();
            let texts = |list: Vec<(std::net::IpAddr, u8)>, bare: bool| {
                let text = |(ip, len)| if bare { format!("{ip}") } else { format!("{ip}/{len}") };
                list.into_iter().map(text).collect::<Vec<_>>().join(" ")
            };
            self.voice.say(&format!(
                "   {}  at {}  pod CIDR {}  pod {}",
                name(number),
                texts(addressing.machine(number), true),
                texts(addressing.pod_cidrs(number), false),
                texts(addressing.inside(number, 2), true),
            ));
        }
        self.voice.say(&format!("\n   Built, and every table right, in {}.", time(self.outcome.built)));
        Ok(())
    }

    /// The first machine's tables, with what each row is for.
    fn show(&mut self) -> Result<(), Trouble> {
        self.voice.say("\n2. What the agents made\n\n   node-2 has announced itself in the annotations of its Node:\n");
        let annotations = self.stage.server.node("node-2").map(|node| node["metadata"]["annotations"].clone());
        for (key, value) in annotations.iter().filter_map(|all| all.as_object()).flatten() {
            self.voice.say(&format!("     {key}: {}", value.as_str().unwrap_or_default()));
        }
        let sight = self.stage.look(1)?;
        for family in self.families() {
            self.voice
                .say(&format!("\n   node-1 has made a device from its own annotations, and three rows for node-2:\n"));
            let device = sight.host.links.iter().find(|link| Some(&link.name) == self.stage.device(family));
            if let Some(link) = device {
                let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
                self.voice.say(&format!("     device     {} address {mac} mtu {}", link.name, link.mtu));
            }
            let node = self.stage.server.node("node-2").unwrap_or_default();
            for row in rows::peer(&node, family).into_iter().flatten().filter(|row| sight.rows.contains(row)) {
                let why = match row {
                    Row::Route(..) => "packets for its pods go to its end of the tunnel,",
                    Row::Neighbour(..) => "that end has this MAC,",
                    Row::Fdb(..) => "and frames for this MAC are sent to this machine, in UDP.",
                };
                self.voice.say(&format!("     {:62}  {why}", row.to_string()));
            }
        }
        Ok(())
    }

    fn ping(&mut self) -> Result<(), Trouble> {
        let count = self.stage.ping_all()?;
        if self.outcome.pings == 0 {
            self.voice.say("\n3. Everybody pings every pod\n");
        }
        self.outcome.pings += count;
        self.voice.say(&format!("   {count} of {count} pings answered: every pod, from every pod and every machine."));
        Ok(())
    }

    fn wounds(&mut self) -> Result<(), Trouble> {
        self.voice
            .say("\n4. Somebody breaks it, on node-1, while node-1's pod pings node-2's a thousand times a second\n");
        for family in self.families() {
            for wound in Wound::ALL {
                let scene = breakage::inflict(self.stage, family, wound, self.options.nodes > 2)?;
                self.tell(scene);
            }
        }
        Ok(())
    }

    fn tell(&mut self, scene: super::outcome::Scene) {
        let Tally { sent, lost, .. } = scene.through;
        self.voice.say(&format!("   {}", scene.what));
        self.voice.say(&format!("      healed in {}, {lost} of {sent} pings lost", time(scene.healed)));
        self.outcome.scenes.push(scene);
    }

    /// Joining, re-installing, leaving.
    fn lives(&mut self) -> Result<(), Trouble> {
        let new = self.options.nodes + 1;
        let with = |through| Traffic { through, beside: None, v6: false };
        self.voice.say("\n5. Nodes come and go\n");

        self.stage.add_machine(new)?;
        self.stage.add_node(new);
        let what = format!("{} joins: its agent starts", name(new));
        let scene = heal::measure(self.stage, what, with((1, new)), None, |stage| stage.start_agent(new))?;
        self.tell(scene);

        let before = self.mac(2);
        let what = "node-2 is installed anew: new Node, new MAC, its agent starts".to_owned();
        self.stage.stop_agent(2)?;
        breakage::wipe(self.stage, 2)?;
        self.stage.server.delete_node("node-2");
        self.stage.add_node(2);
        self.stage.settle()?;
        let scene = heal::measure(self.stage, what, with((1, 2)), None, |stage| stage.start_agent(2))?;
        if self.mac(2) == before {
            return Err(Trouble::Unproven("node-2 was installed anew but has its old MAC".to_owned()));
        }
        self.tell(scene);

        let what = format!("{} leaves: its Node is deleted", name(new));
        self.stage.stop_agent(new)?;
        let scene = heal::measure(self.stage, what, with((1, 2)), None, |stage| {
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

    fn mac(&self, number: u8) -> Option<[Row; 3]> {
        rows::peer(&self.stage.server.node(&name(number))?, Family::V4)
    }

    /// Healing needs no API server.
    fn alone(&mut self) -> Result<(), Trouble> {
        self.voice.say("\n6. The API server goes away; the tables stay, and are still looked after\n");
        self.stage.stop_server();
        let mut scene = breakage::inflict(self.stage, Family::V4, Wound::Route, self.options.nodes > 2)?;
        self.stage.resume_server()?;
        scene.what += ", without API server";
        self.tell(scene);
        Ok(())
    }
}
