//! What goes wrong again and again with the API server: said ever more rarely, and kept for whoever asks.

use std::time::Duration;

use parking_lot::Mutex;

use super::problem::Class;

/// Problems of one kind in a row.
#[derive(Debug, Default)]
pub struct Streak(Option<(Class, u64)>);

impl Streak {
    /// One more. Returns how many of its kind that makes.
    pub fn add(&mut self, class: Class) -> u64 {
        let times = match self.0 {
            Some((same, times)) if same == class => times + 1,
            _ => 1,
        };
        self.0 = Some((class, times));
        times
    }

    /// Whether the problem that makes it so many is worth a line in the log: the first, the second, the fourth, the
    /// eighth.
    pub const fn is_news(times: u64) -> bool {
        times.is_power_of_two()
    }

    /// The kind, and how many there were; `None` while all is well.
    pub const fn now(&self) -> Option<(Class, u64)> {
        self.0
    }

    /// All is well again. Returns what had been wrong.
    pub fn end(&mut self) -> Option<Class> {
        self.0.take().map(|(class, _)| class)
    }
}

/// A problem, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Its kind.
    pub class: Class,
    /// A sentence.
    pub text: String,
    /// When, since the agent started.
    pub at: Duration,
}

/// Where the last problem of a loop is kept, whether it is over or not.
#[derive(Debug, Default)]
pub struct LastProblem(Mutex<Option<Last>>);

impl LastProblem {
    /// What it was.
    pub fn get(&self) -> Option<Last> {
        self.0.lock().clone()
    }

    /// Keeps one.
    pub fn set(&self, class: Class, text: String, at: Duration) {
        *self.0.lock() = Some(Last { class, text, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kind_of_problem_is_news() {
        let mut streak = Streak::default();
        let said = |streak: &mut Streak, class| Streak::is_news(streak.add(class));
        let timeouts: Vec<bool> = (0..9).map(|_| said(&mut streak, Class::Timeout)).collect();
        assert_eq!(timeouts, [true, true, false, true, false, false, false, true, false]);
        assert!(said(&mut streak, Class::Server));
        assert_eq!((streak.end(), streak.end()), (Some(Class::Server), None));
        assert!(said(&mut streak, Class::Server), "and what comes back");
    }
}
