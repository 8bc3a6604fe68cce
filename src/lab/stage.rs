//! The lab as a whole: underlay, API server, machines and their agents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::addressing::Addressing;
use super::agent::{Agent, Start};
use super::apiserver::ApiServer;
use super::ping;
use super::rows::{self, Row, Sight};
use super::topology::{Machine, Underlay};
use crate::kernel::netlink::Netlink;
use crate::model::addr::{Family, IfName};
use crate::model::host::Scope;
use crate::model::settings::Backend;

/// Where the API server listens, on the underlay's bridge.
const API_PORT: u16 = 8080;

/// How long the lab waits for anything before it calls it broken, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How often it looks.
const GLANCE: Duration = Duration::from_micros(500);

/// A machine in the lab.
#[derive(Debug)]
pub struct Member {
    /// The machine.
    pub machine: Machine,
    /// The lab's own eyes in it.
    pub eyes: Netlink,
    /// Its agent, if one runs.
    pub agent: Option<Agent>,
}

/// Everything.
#[derive(Debug)]
pub struct Stage {
    /// The wires.
    pub underlay: Underlay,
    /// The API server.
    pub server: ApiServer,
    /// The machines, by number.
    pub members: BTreeMap<u8, Member>,
    /// How long it waits for anything before it calls it broken; [`PATIENCE`] unless set.
    pub patience: Duration,
    backend: Backend,
    scope: Scope,
    program: PathBuf,
    directory: PathBuf,
    show_logs: bool,
}

/// What is wrong, as a sentence for whoever watches.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The kernel or the file system refused something that the lab itself needs.
    #[error("the lab cannot go on: {0}")]
    Host(#[from] io::Error),
    /// An agent is not there any more.
    #[error("the agent of {0} has ended by itself")]
    AgentDied(String),
    /// It did not become as it should in this time.
    #[error("not within {0:?}: {1}")]
    TooSlow(Duration, String),
    /// What was to be shown did not happen.
    #[error("{0}")]
    Unproven(String),
}

impl Stage {
    /// Builds the underlay and the API server in the calling thread's namespace. Files go to `directory`,
    /// agents run `program`, with the backend VXLAN.
    ///
    /// # Errors
    /// If the kernel refuses any of it.
    pub fn build(addressing: Addressing, program: &Path, directory: &Path, show_logs: bool) -> Result<Self, Trouble> {
        let underlay = Underlay::build(addressing)?;
        let server = ApiServer::start(TcpListener::bind((underlay.address(), API_PORT))?)?;
        fs::create_dir_all(directory)?;
        let stage = Self {
            underlay,
            server,
            members: BTreeMap::new(),
            patience: PATIENCE,
            backend: Backend::Vxlan,
            scope: Scope::default(),
            program: program.to_owned(),
            directory: directory.to_owned(),
            show_logs,
        };
        stage.with(Backend::Vxlan)
    }

    /// The same with this backend, for agents that are started from now on.
    ///
    /// # Errors
    /// If the agents' configuration cannot be written.
    pub fn with(mut self, backend: Backend) -> Result<Self, Trouble> {
        let addressing = self.underlay.addressing();
        let mut conf = addressing.net_conf();
        conf["Backend"]["Type"] = backend.label().into();
        fs::write(self.directory.join("net-conf.json"), conf.to_string())?;
        self.backend = backend;
        self.scope = rows::scope(addressing.networks(), backend, addressing.segments > 1);
        Ok(self)
    }

    /// The agents' backend.
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// Builds the n-th machine; its Node and its agent are yet to come.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add_machine(&mut self, number: u8) -> Result<(), Trouble> {
        let machine = self.underlay.add(number)?;
        let eyes = machine.network.run(Netlink::open)??;
        self.members.insert(number, Member { machine, eyes, agent: None });
        Ok(())
    }

    /// Creates the n-th machine's Node, with its pod CIDR, as kubelet and controller manager would.
    pub fn add_node(&self, number: u8) {
        self.server.put_node(self.underlay.addressing().node(number));
    }

    /// Starts the n-th machine's agent.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_agent(&mut self, number: u8) -> Result<(), Trouble> {
        let url = format!("http://{}", SocketAddr::new(self.underlay.address(), API_PORT));
        let start =
            Start { program: &self.program, api_url: &url, directory: &self.directory, show_log: self.show_logs };
        let member = self.members.get_mut(&number).ok_or_else(|| Trouble::Unproven(format!("no machine {number}")))?;
        fs::create_dir_all(self.directory.join(&member.machine.name))?;
        member.agent = Some(Agent::start(&member.machine, &start)?);
        Ok(())
    }

    /// Stops the n-th machine's agent, as kubelet would; what it has programmed stays.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop_agent(&mut self, number: u8) -> Result<(), Trouble> {
        let agent = self.members.get_mut(&number).and_then(|member| member.agent.take());
        if let Some(agent) = agent {
            agent.stop()?;
        }
        Ok(())
    }

    /// Takes the n-th machine away.
    ///
    /// # Errors
    /// If its wire cannot be cut.
    pub fn remove_machine(&mut self, number: u8) -> Result<(), Trouble> {
        if let Some(member) = self.members.remove(&number) {
            drop(member.agent);
            self.underlay.remove(&member.machine)?;
        }
        Ok(())
    }

    /// Stops the API server: connections to it are refused.
    pub fn stop_server(&self) {
        self.server.stop();
    }

    /// Starts it again, with what it had.
    ///
    /// # Errors
    /// If its port cannot be had.
    pub fn resume_server(&self) -> Result<(), Trouble> {
        self.server.resume(TcpListener::bind((self.underlay.address(), API_PORT))?)?;
        Ok(())
    }

    /// The name of the agents' device of a family, if the family is in use and the backend has one.
    pub const fn device(&self, family: Family) -> Option<&IfName> {
        self.scope.devices.get(family).as_ref()
    }

    /// What happens in one family, in words: IPv6 is named where there is IPv4 too.
    pub fn of_family(&self, what: &str, family: Family) -> String {
        let named = family == Family::V6 && self.underlay.addressing().stack.has(Family::V4);
        if named { format!("{what}, IPv6") } else { what.to_owned() }
    }

    /// What the n-th machine's tables should hold now; `None` as long as a Node whose agent runs has not
    /// announced itself in every family. Both from one look at the cluster: between two, it may change.
    pub fn wanted(&self, number: u8) -> Option<BTreeSet<Row>> {
        let nodes = self.server.nodes();
        let families = || self.underlay.addressing().families();
        let announced = |member: &Member| {
            let node = nodes.iter().find(|node| node["metadata"]["name"] == member.machine.name.as_str());
            node.is_some_and(|node| families().all(|family| rows::peer(node, family).is_some()))
        };
        let all = self.members.values().filter(|member| member.agent.is_some()).all(announced);
        all.then(|| rows::wanted(&nodes, &super::addressing::name(number), families()))
    }

    /// What is on the n-th machine now.
    ///
    /// # Errors
    /// If its kernel cannot be read.
    pub fn look(&mut self, number: u8) -> Result<Sight, Trouble> {
        let member = self.members.get_mut(&number).ok_or_else(|| Trouble::Unproven(format!("no machine {number}")))?;
        rows::look(&mut member.eyes, &self.scope).map_err(|error| Trouble::Unproven(error.to_string()))
    }

    /// Waits until all machines that run an agent hold exactly what every announced node asks for.
    ///
    /// # Errors
    /// If it takes longer than its patience, with the difference; or if an agent ends.
    pub fn settle(&mut self) -> Result<(), Trouble> {
        let begun = Instant::now();
        let numbers: Vec<u8> = self.members.iter().filter(|(_, m)| m.agent.is_some()).map(|(n, _)| *n).collect();
        for number in numbers {
            self.settle_one(number, begun)?;
        }
        Ok(())
    }

    /// The same of one machine, counted from `begun`.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub fn settle_one(&mut self, number: u8, begun: Instant) -> Result<(), Trouble> {
        loop {
            let late = begun.elapsed() > self.patience;
            let (mut wanted, sight) = (self.wanted(number), self.look(number)?);
            if let Some(wanted) = wanted.as_mut().filter(|_| self.scope.ways) {
                let direct = rows::direct(wanted, &sight.host);
                wanted.extend(direct);
            }
            if sight.devices_up && wanted.as_ref() == Some(&sight.rows) {
                return Ok(());
            }
            if late {
                return Err(Trouble::TooSlow(
                    self.patience,
                    difference(&super::addressing::name(number), wanted.as_ref(), &sight),
                ));
            }
            self.check_agent(number)?;
            std::thread::sleep(GLANCE);
        }
    }

    fn check_agent(&mut self, number: u8) -> Result<(), Trouble> {
        let Some(member) = self.members.get_mut(&number) else { return Ok(()) };
        match member.agent.as_mut().map(Agent::ended).transpose()?.flatten() {
            Some(_) => Err(Trouble::AgentDied(member.machine.name.clone())),
            None => Ok(()),
        }
    }

    /// Moves a machine to another segment: first a wire there, then, when all have noticed, the old one away,
    /// its addresses first.
    ///
    /// # Errors
    /// If the kernel refuses, or the agents do not follow.
    pub fn move_machine(&mut self, number: u8, segment: u8) -> Result<(), Trouble> {
        let member = self.members.get_mut(&number).ok_or_else(|| Trouble::Unproven(format!("no machine {number}")))?;
        self.underlay.plug_in(&member.machine, segment)?;
        let begun = Instant::now();
        let addresses = self.underlay.addressing().machine_on(number, segment);
        while !addresses.iter().all(|(ip, _)| self.announces(number, *ip)) {
            if begun.elapsed() > self.patience {
                return Err(Trouble::TooSlow(self.patience, format!("node-{number} announces its new address")));
            }
            std::thread::sleep(GLANCE);
        }
        self.settle()?;
        let missing = || Trouble::Unproven(format!("no machine {number}"));
        self.underlay.quiet(&self.members.get(&number).ok_or_else(missing)?.machine)?;
        self.settle()?;
        let member = self.members.get_mut(&number).ok_or_else(missing)?;
        Ok(self.underlay.cut(&mut member.machine, segment)?)
    }

    /// Whether a node has announced this address.
    fn announces(&self, number: u8, ip: std::net::IpAddr) -> bool {
        let node = self.server.node(&super::addressing::name(number)).unwrap_or_default();
        let rows = rows::peer(&node, Family::of(ip));
        rows.into_iter().flatten().any(|row| matches!(row, Row::Fdb(_, at) if at == ip))
    }

    /// Pings every pod from every pod and every machine, in every family; the number of pings, all
    /// answered.
    ///
    /// # Errors
    /// The first that is not answered.
    pub fn ping_all(&self) -> Result<usize, Trouble> {
        let mut count = 0;
        for from in self.members.values() {
            for to in self.members.values() {
                for ip in &to.machine.pod.addresses {
                    for (what, network) in [("machine", &from.machine.network), ("pod", &from.machine.pod.network)] {
                        let answer = network.run(|| ping::once(*ip, Duration::from_secs(2)))??;
                        let (from, to) = (&from.machine.name, &to.machine.name);
                        answer.ok_or_else(|| {
                            Trouble::Unproven(format!("the {what} on {from} cannot ping {to}'s pod {ip}"))
                        })?;
                        count += 1;
                    }
                }
            }
        }
        Ok(count)
    }
}

/// What is not as it should be, to end the sentence of [`Trouble::TooSlow`].
fn difference(name: &str, wanted: Option<&BTreeSet<Row>>, sight: &Sight) -> String {
    let Some(wanted) = wanted else {
        return "every node has announced itself".to_owned();
    };
    if !sight.devices_up {
        return format!("{name} has its devices up");
    }
    let missing: Vec<String> = wanted.difference(&sight.rows).map(|row| format!("  + {row}")).collect();
    let stale: Vec<String> = sight.rows.difference(wanted).map(|row| format!("  - {row}")).collect();
    format!("{name} has the right rows\n{}", [missing, stale].concat().join("\n"))
}
