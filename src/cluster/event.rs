//! Events of a watch, and refusals, as they come over the wire.

use super::annotations::{Keys, shorten};
use super::json::{self, Fill};
use super::problem::Problem;
use super::wire::SlimNode;

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Event<'k> {
    /// `ADDED` or `MODIFIED`: this is how the Node is now.
    Applied(SlimNode<'k>),
    /// `DELETED`.
    Deleted(SlimNode<'k>),
    /// `BOOKMARK`: nothing happened up to this resourceVersion.
    Bookmark {
        /// Where a watch may go on.
        resource_version: String,
        /// Whether everything there was at the start of a streaming list has been sent.
        initial_events_end: bool,
    },
    /// `ERROR`: the watch is over.
    Failed(Status),
}

impl<'k> Event<'k> {
    /// Reads one line of a watch.
    ///
    /// # Errors
    /// If it is not an event.
    pub fn read(keys: &'k Keys, line: &[u8]) -> Result<Self, Problem> {
        let mut raw = RawEvent { kind: String::new(), node: SlimNode::new(keys) };
        json::fill(&mut raw, line)?;
        let RawEvent { kind, node } = raw;
        match &*kind {
            "ADDED" | "MODIFIED" => Ok(Self::Applied(node)),
            "DELETED" => Ok(Self::Deleted(node)),
            "BOOKMARK" => Ok(Self::Bookmark {
                resource_version: node.meta.resource_version,
                initial_events_end: node.meta.annotations.initial_events_end,
            }),
            "ERROR" => {
                let mut error = RawError::default();
                json::fill(&mut error, line)?;
                Ok(Self::Failed(error.0))
            }
            other => Err(Problem::Garbage(format!("an event of the unknown type {:?}", shorten(other)))),
        }
    }
}

struct RawEvent<'k> {
    kind: String,
    node: SlimNode<'k>,
}

impl Fill for RawEvent<'_> {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "type" => Some(&mut self.kind),
            "object" => Some(&mut self.node),
            _ => None,
        }
    }
}

/// An event whose object is a Status.
#[derive(Default)]
struct RawError(Status);

impl Fill for RawError {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "object" => Some(&mut self.0),
            _ => None,
        }
    }
}

/// A Status object: how the API server says no. What is missing is empty or zero.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// `code`: as in HTTP.
    pub code: Number,
    /// `reason`: one word.
    pub reason: String,
    /// `message`: a sentence.
    pub message: String,
    /// `details`.
    pub details: Details,
}

/// `details` of a Status.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// `retryAfterSeconds`.
    pub retry_after: Number,
}

/// A number; zero until it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number(pub u64);

impl Status {
    /// Reads what it can of an answer that was not a success.
    pub fn read(json: &[u8]) -> Self {
        let mut status = Self::default();
        // A body that is no Status (a proxy's HTML) leaves it empty: the HTTP code says enough.
        let _ = json::fill(&mut status, json);
        status
    }
}

impl Fill for Status {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "code" => Some(&mut self.code),
            "reason" => Some(&mut self.reason),
            "message" => Some(&mut self.message),
            "details" => Some(&mut self.details),
            _ => None,
        }
    }
}

impl Fill for Details {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "retryAfterSeconds" => Some(&mut self.retry_after),
            _ => None,
        }
    }
}

impl Fill for Number {
    fn number(&mut self, number: u64) {
        self.0 = number;
    }
}
