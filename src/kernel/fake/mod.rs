//! Linux in memory, with a schedule of faults.
//!
//! [`Net`] is the kernel itself: links, addresses, main-table routes, neighbours and FDB entries, with
//! the semantics that were measured on Linux 6.18 (`docs/kernel-facts.md`). [`FakeKernel`] puts it
//! behind [`Kernel`] and lets a test say what goes wrong at which operation ([`Fault`]). It keeps a
//! record of every operation, and calls a check after each, so that a property can be about every
//! state between two operations and not only about the last one. `tests/kernel` holds it to Linux.

mod admin;
mod copy;
mod faults;
mod filter;
mod links;
mod net;
mod rows;

pub use faults::{Fate, Fault};
pub use net::{Interface, MainRoute, Net};

use std::collections::BTreeMap;

use super::{Kernel, ObserveError};
use crate::model::host::{Host, Scope};
use crate::model::op::{Ack, Op, Refusal};

/// Something done to the network by somebody else.
pub type Meddler = Box<dyn FnMut(&mut Net) + Send>;
/// Called with the state after every operation that came in, whatever became of it.
pub type Check = Box<dyn FnMut(&Net, &Tried) + Send>;
/// Decides about an operation before any scheduled fault does; `None` lets it pass.
pub type Rule = Box<dyn FnMut(&Op) -> Option<Fate> + Send>;

/// One operation that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Counts from 1.
    pub number: u64,
    /// What was asked.
    pub op: Op,
    /// What was answered.
    pub ack: Ack,
}

/// A [`Net`] that can be told to fail.
#[derive(Default)]
pub struct FakeKernel {
    /// The kernel's state: look at it, or disturb it, at any time between passes.
    pub net: Net,
    faults: BTreeMap<u64, Fault>,
    blind: BTreeMap<u64, ObserveError>,
    rule: Option<Rule>,
    meddler: Option<Meddler>,
    check: Option<Check>,
    tried: Vec<Tried>,
    operations: u64,
    observations: u64,
    dead: bool,
}

impl FakeKernel {
    /// A kernel in this state, without faults.
    pub fn new(net: Net) -> Self {
        Self { net, ..Self::default() }
    }

    /// Lets the `nth` operation from now (1 is the next) go wrong.
    pub fn fail(&mut self, nth: u64, fault: Fault) {
        self.faults.insert(self.operations + nth, fault);
    }

    /// Lets the `nth` observation from now (1 is the next) fail.
    pub fn fail_observation(&mut self, nth: u64, error: ObserveError) {
        self.blind.insert(self.observations + nth, error);
    }

    /// Puts a rule above the schedule: for faults that last.
    pub fn rule(&mut self, rule: impl FnMut(&Op) -> Option<Fate> + Send + 'static) {
        self.rule = Some(Box::new(rule));
    }

    /// Lets somebody else act before every operation.
    pub fn meddle(&mut self, meddler: impl FnMut(&mut Net) + Send + 'static) {
        self.meddler = Some(Box::new(meddler));
    }

    /// Calls `check` after every operation; it panics if it does not like what it sees.
    pub fn check(&mut self, check: impl FnMut(&Net, &Tried) + Send + 'static) {
        self.check = Some(Box::new(check));
    }

    /// Takes rule, meddler and every scheduled fault away; the check stays. A dead process is
    /// replaced by a new one.
    pub fn calm(&mut self) {
        self.rule = None;
        self.meddler = None;
        self.faults.clear();
        self.blind.clear();
        self.dead = false;
    }

    /// Scheduled faults that have not happened (yet): a test that planned one asserts that it did.
    pub fn unspent(&self) -> usize {
        self.faults.len() + self.blind.len()
    }

    /// Whether the process that used this kernel has died ([`Fault::Die`]).
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Every operation that came in while the process lived, since the last call.
    pub fn take_tried(&mut self) -> Vec<Tried> {
        std::mem::take(&mut self.tried)
    }

    /// How many operations ever came in while the process lived.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// How many times the kernel was looked at.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    fn one(&mut self, op: &Op) -> Ack {
        if self.dead {
            return Ack::Unknown("the process is dead".into());
        }
        self.operations += 1;
        if let Some(meddler) = &mut self.meddler {
            meddler(&mut self.net);
        }
        let ruled = self.rule.as_mut().and_then(|rule| rule(op)).map(Fault::Fate);
        let ack = match ruled.or_else(|| self.faults.remove(&self.operations)) {
            None => self.net.ack(op),
            Some(fault) => self.go_wrong(fault, op),
        };
        let tried = Tried { number: self.operations, op: op.clone(), ack: ack.clone() };
        if let Some(check) = &mut self.check {
            check(&self.net, &tried);
        }
        self.tried.push(tried);
        ack
    }

    fn go_wrong(&mut self, fault: Fault, op: &Op) -> Ack {
        match fault {
            Fault::Fate(Fate::Refused(errno)) => Ack::Refused(Refusal { errno, text: None }),
            Fault::Fate(Fate::DoneUnheard) => {
                let _unheard = self.net.ack(op);
                Ack::Unknown("the answer was lost".into())
            }
            Fault::Fate(Fate::NotDoneUnheard) => Ack::Unknown("the question was lost".into()),
            Fault::Fate(Fate::Lie) => Ack::Done,
            Fault::Overtaken(mut meddler) => {
                meddler(&mut self.net);
                self.net.ack(op)
            }
            Fault::Undone(mut meddler) => {
                let ack = self.net.ack(op);
                meddler(&mut self.net);
                ack
            }
            Fault::Vanish => {
                if let Some(device) = op.device() {
                    self.net.del_link(device);
                }
                self.net.ack(op)
            }
            Fault::Die { done } => {
                if done {
                    let _nobody_hears = self.net.ack(op);
                }
                self.dead = true;
                Ack::Unknown("the process died here".into())
            }
        }
    }
}

impl Kernel for FakeKernel {
    fn observe(&mut self, scope: &Scope) -> Result<Host, ObserveError> {
        if self.dead {
            return Err(ObserveError::Broken { what: "everything", problem: "the process is dead".into() });
        }
        self.observations += 1;
        match self.blind.remove(&self.observations) {
            Some(error) => Err(error),
            None => Ok(self.net.observe(scope)),
        }
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Ack> {
        ops.iter().map(|op| self.one(op)).collect()
    }
}
