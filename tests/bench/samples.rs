//! Repeated measurements of one thing, and how they are told: the median and the extremes.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// What something took: by the clock on the wall, and of the CPU, in this thread. All that is measured here
/// happens in this thread, in the kernel or out of it, so on a machine that does nothing else the two are the
/// same; on any other the second leaves out waiting for the CPU and for locks that others hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

/// A watch that is running.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    wall: Instant,
    cpu: Duration,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }

    pub(crate) fn took(&self) -> Took {
        Took { wall: self.wall.elapsed(), cpu: cpu().saturating_sub(self.cpu) }
    }
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("this thread's clock").into()
}

impl std::ops::AddAssign for Took {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// Measurements by both clocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timed {
    pub(crate) wall: Samples,
    pub(crate) cpu: Samples,
}

impl Timed {
    pub(crate) fn add(&mut self, took: Took) {
        self.wall.add(took.wall);
        self.cpu.add(took.cpu);
    }
}

/// Measurements in the order in which they were made; milliseconds, or ratios.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e3);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// The value that this share of the measurements does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if (share - 0.5).abs() < f64::EPSILON && sorted.len().is_multiple_of(2) && middle > 0 {
            return f64::midpoint(sorted[middle - 1], sorted[middle]);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = ((sorted.len() as f64) * share) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    /// Run by run, this divided by that: two measurements of one run were made within moments of each
    /// other, so what the machine was busy with falls out.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median(), "min": self.min(), "max": self.max(), "runs": self.0.len() })
    }
}

/// `45.1 (43.0–52.3)`: the median, the least and the greatest.
impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |value: f64| match value {
            _ if value >= 100.0 => format!("{value:.0}"),
            _ if value >= 10.0 => format!("{value:.1}"),
            _ if value >= 0.1 => format!("{value:.2}"),
            _ => format!("{value:.3}"),
        };
        match self.0.len() {
            0 => f.write_str("–"),
            1 => f.write_str(&number(self.median())),
            _ => write!(f, "{} ({}–{})", number(self.median()), number(self.min()), number(self.max())),
        }
    }
}
