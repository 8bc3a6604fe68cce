//! What can go wrong at one operation.

use std::fmt;

use super::Meddler;

/// What becomes of an operation instead of what Linux would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Refused with this error number; nothing is done.
    Refused(i32),
    /// Done (or refused) as Linux would, but the answer is lost.
    DoneUnheard,
    /// Not done, and no answer says so.
    NotDoneUnheard,
    /// Not done, and the answer says that it was.
    Lie,
}

/// What happens at an operation.
pub enum Fault {
    /// To the operation itself.
    Fate(Fate),
    /// Somebody acts just before it.
    Overtaken(Meddler),
    /// Somebody acts just after it.
    Undone(Meddler),
    /// Its device is deleted just before it.
    Vanish,
    /// The process dies: no later operation is done, no answer arrives, nothing can be read. The
    /// operation itself is `done` or not. [`super::FakeKernel::calm`] starts the next process.
    Die {
        /// Whether the kernel still did it.
        done: bool,
    },
}

impl Fault {
    /// Refused with this error number.
    pub const fn refused(errno: i32) -> Self {
        Self::Fate(Fate::Refused(errno))
    }

    /// Somebody acts just before it.
    pub fn overtaken(meddler: impl FnMut(&mut super::Net) + Send + 'static) -> Self {
        Self::Overtaken(Box::new(meddler))
    }

    /// Somebody acts just after it.
    pub fn undone(meddler: impl FnMut(&mut super::Net) + Send + 'static) -> Self {
        Self::Undone(Box::new(meddler))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fate(fate) => write!(f, "{fate:?}"),
            Self::Overtaken(_) => f.write_str("Overtaken"),
            Self::Undone(_) => f.write_str("Undone"),
            Self::Vanish => f.write_str("Vanish"),
            Self::Die { done } => write!(f, "Die {{ done: {done} }}"),
        }
    }
}
