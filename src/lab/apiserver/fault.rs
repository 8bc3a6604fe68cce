//! Faults to order: what an API server, or something that stands before it, does on bad days.

use std::time::Duration;

use super::route::Verb;

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Refused with this HTTP status and a proper `Status` body.
    Refuse {
        /// The HTTP status, such as 410, 429, 500 or 503.
        code: u16,
        /// The `Retry-After` header, in seconds.
        retry_after: Option<u32>,
    },
    /// Answered 200, with a body that is no JSON: a proxy's page.
    Garbage,
    /// The answer breaks off in the middle and the connection closes.
    Truncate,
    /// Never answered; the connection stays open.
    Hang,
    /// The connection closes without an answer.
    Drop,
    /// Answered as always, but later.
    Delay(Duration),
    /// A list that is whole to look at and lacks every second object.
    HalfList,
    /// One more object than there is, of a shape that is no Node: `metadata` is a text.
    Undecodable,
    /// A watch that ends as soon as it has begun.
    EndWatch,
    /// A watch that says nothing, whatever happens, and stays open.
    MuteWatch,
    /// A watch whose first line is no JSON.
    GarbageLine,
    /// A watch that starts with an ERROR event of code 410.
    ExpiredWatch,
    /// 422 as of a server without the `WatchList` feature.
    RefuseStreaming,
    /// `sendInitialEvents` is overlooked, as by a server that is too old to know it: the objects come,
    /// but not the bookmark that ends them.
    IgnoreStreaming,
}

/// Which faults wait, in the order in which they were put.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
    fired: u64,
}

#[derive(Debug)]
struct Fault {
    on: Vec<Verb>,
    action: Action,
    left: Option<u32>,
}

impl Faults {
    /// Puts one for requests of these kinds; `times` is how often, `None` until cleared.
    pub(super) fn put(&mut self, on: &[Verb], action: Action, times: Option<u32>) {
        self.waiting.push(Fault { on: on.to_vec(), action, left: times });
    }

    /// The fault that this request meets: the first that is for its kind.
    pub(super) fn take(&mut self, verb: Verb) -> Option<Action> {
        let at = self.waiting.iter().position(|fault| fault.on.contains(&verb) && fault.left != Some(0))?;
        let fault = &mut self.waiting[at];
        let action = fault.action.clone();
        fault.left = fault.left.map(|left| left - 1);
        self.waiting.retain(|fault| fault.left != Some(0));
        self.fired += 1;
        Some(action)
    }

    /// How many requests met a fault.
    pub(super) const fn fired(&self) -> u64 {
        self.fired
    }

    /// Forgets all that wait.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}
