//! What the tour found, for people and for programs.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::addressing::Stack;
use super::ping::Tally;
use crate::model::addr::Family;

/// One thing that happened, and how it ended.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What happened, in words.
    pub what: String,
    /// The command that did it, if one did.
    pub command: Option<String>,
    /// From then until the tables of the machine that was broken were right; without one, of all.
    pub healed: Duration,
    /// The pings that ran through what was broken.
    pub through: Tally,
    /// The pings that ran beside it, and must not have noticed.
    pub beside: Option<Tally>,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Machines at the start.
    pub nodes: u8,
    /// The families.
    pub stack: Stack,
    /// From nothing to all tables right.
    pub built: Duration,
    /// Pings of everybody to everybody, all answered.
    pub pings: usize,
    /// What happened.
    pub scenes: Vec<Scene>,
    /// In all.
    pub took: Duration,
    /// Why it ended early, if it did.
    pub problem: Option<String>,
}

impl Outcome {
    /// Whether everything that was promised happened.
    pub const fn ok(&self) -> bool {
        self.problem.is_none()
    }

    /// For programs. Times in milliseconds.
    pub fn json(&self) -> Value {
        let scene = |scene: &Scene| {
            json!({
                "what": scene.what, "command": scene.command, "healed_ms": millis(scene.healed), "sent": scene.through.sent,
                "lost": scene.through.lost, "silent_ms": millis(scene.through.longest_gap),
                "beside_lost": scene.beside.as_ref().map(|tally| tally.lost),
            })
        };
        json!({
            "ok": self.ok(), "nodes": self.nodes, "families": self.stack.families().map(Family::label).collect::<Vec<_>>(),
            "built_ms": millis(self.built),
            "pings": self.pings, "scenes": self.scenes.iter().map(scene).collect::<Vec<_>>(),
            "took_ms": millis(self.took), "problem": self.problem,
        })
    }

    /// For people: the table that ends the tour.
    pub fn table(&self) -> String {
        let cells = |scene: &Scene| {
            let lost = format!("{} of {}", scene.through.lost, scene.through.sent);
            let silence = if scene.through.lost == 0 { "none".to_owned() } else { time(scene.through.longest_gap) };
            [scene.what.clone(), time(scene.healed), lost, silence]
        };
        let head = ["what happened", "right after", "pings lost", "longest silence"].map(str::to_owned);
        let rows: Vec<[String; 4]> = std::iter::once(head).chain(self.scenes.iter().map(cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        let mut out = String::new();
        for [what, healed, lost, silence] in &rows {
            let [a, b, c, d] = widths;
            // Writing into a String cannot fail.
            let _ = writeln!(out, "  {what:a$}   {healed:>b$}   {lost:>c$}   {silence:>d$}");
        }
        out
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A time with three digits or so: `1.84 ms`, `312 ms`, `1.2 s`.
pub fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        10.0..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let scene = |what: &str, micros, lost| Scene {
            what: what.to_owned(),
            command: None,
            healed: Duration::from_micros(micros),
            through: Tally { sent: 100, lost, longest_gap: Duration::from_millis(1200) },
            beside: None,
        };
        let outcome = Outcome { scenes: vec![scene("a", 1840, 0), scene("longer", 312_000, 7)], ..Outcome::default() };
        let table = "  what happened   right after   pings lost   longest silence\n  \
                     a                    1.8 ms     0 of 100              none\n  \
                     longer               312 ms     7 of 100             1.2 s\n";
        assert_eq!(outcome.table(), table);
        assert_eq!(outcome.json()["scenes"][0]["healed_ms"], 1.84);
    }
}
