//! What can go wrong with a request to the API server, in words for an operator.

use std::time::Duration;

use super::annotations::shorten;
use super::event::Status;
use super::wire::NotAList;

/// A request, or a watch, that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No connection, or one that died before there was an answer.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the API server did not {what} within {} s", after.as_secs_f32())]
    Timeout {
        /// What it did not do.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// It said no.
    #[error("the API server answered {code} {reason}{}{message}{}", if .message.is_empty() { "" } else { ": " }, hint(*.code))]
    Refused {
        /// As in HTTP.
        code: u16,
        /// One word.
        reason: Box<str>,
        /// Its sentence, shortened.
        message: Box<str>,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer broke off.
    #[error("the answer of the API server broke off: {0}")]
    Cut(String),
    /// The answer made no sense.
    #[error("the API server sent {0}")]
    Garbage(String),
}

/// What an operator can do about the refusals that do not pass by themselves.
const fn hint(code: u16) -> &'static str {
    match code {
        401 => " (check the service account token or the credentials in the kubeconfig)",
        403 => " (check the ClusterRole: nodes list and watch, nodes/status patch, events create and patch)",
        _ => "",
    }
}

/// The kinds of problems, each with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// No connection.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// 410: the resourceVersion or the continue token is too old. Part of normal life.
    Gone,
    /// 429.
    Throttled,
    /// 401 or 403.
    Forbidden,
    /// Any other 4xx.
    Refused,
    /// 5xx.
    Server,
    /// Broke off.
    Cut,
    /// Made no sense.
    Garbage,
    /// A watch that the server closed at once.
    Closed,
}

impl Class {
    /// Every class, for metrics that start at zero.
    pub const ALL: [Self; 10] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Gone,
        Self::Throttled,
        Self::Forbidden,
        Self::Refused,
        Self::Server,
        Self::Cut,
        Self::Garbage,
        Self::Closed,
    ];

    /// A metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Gone => "gone",
            Self::Throttled => "throttled",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
            Self::Server => "server",
            Self::Cut => "cut",
            Self::Garbage => "garbage",
            Self::Closed => "closed",
        }
    }
}

impl Problem {
    /// From an answer that was not a success. `retry_after` is the header's, in seconds.
    pub fn refused(code: u16, retry_after: Option<u64>, status: &Status) -> Self {
        let code = match u16::try_from(status.code.0) {
            Ok(0) | Err(_) => code,
            Ok(stated) => stated,
        };
        let asked = retry_after.or(Some(status.details.retry_after.0)).filter(|seconds| *seconds > 0);
        let message: String = status.message.chars().take(300).collect();
        Self::Refused {
            code,
            reason: shorten(&status.reason),
            message: message.into(),
            retry_after: asked.map(Duration::from_secs),
        }
    }

    /// Its kind.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable(_) => Class::Unreachable,
            Self::Timeout { .. } => Class::Timeout,
            Self::Cut(_) => Class::Cut,
            Self::Garbage(_) => Class::Garbage,
            Self::Refused { code: 410, .. } => Class::Gone,
            Self::Refused { reason, .. } if matches!(&**reason, "Expired" | "Gone") => Class::Gone,
            Self::Refused { code: 429, .. } => Class::Throttled,
            Self::Refused { code: 401 | 403, .. } => Class::Forbidden,
            Self::Refused { code: 500.., .. } => Class::Server,
            Self::Refused { .. } => Class::Refused,
        }
    }

    /// Whether a watch can only go on after a list: where it was to go on is lost or was refused.
    pub fn needs_list(&self) -> bool {
        matches!(self.class(), Class::Gone | Class::Garbage | Class::Refused)
    }

    /// Whether the same request may well succeed a little later.
    pub fn passes(&self) -> bool {
        !matches!(self.class(), Class::Refused | Class::Forbidden | Class::Timeout)
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What does not parse either broke off on its way, or was never what it should be.
impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        if error.is_eof() { Self::Cut(error.to_string()) } else { Self::Garbage(format!("what is not JSON ({error})")) }
    }
}

impl From<NotAList> for Problem {
    fn from(error: NotAList) -> Self {
        match error {
            NotAList::Json(error) => error.into(),
            other => Self::Garbage(other.to_string()),
        }
    }
}
