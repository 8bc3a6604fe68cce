//! What was measured, as Markdown for people and JSON for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::samples::Samples;

/// A cell of a table.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    Count(u64),
    Samples(Samples),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<&Samples> for Cell {
    fn from(samples: &Samples) -> Self {
        Self::Samples(samples.clone())
    }
}

impl From<Samples> for Cell {
    fn from(samples: Samples) -> Self {
        Self::Samples(samples)
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => thousands(*count),
            Self::Samples(samples) => samples.to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Count(count) => (*count).into(),
            Self::Samples(samples) if samples.is_empty() => Value::Null,
            Self::Samples(samples) => samples.json(),
        }
    }
}

/// `5,000`.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

/// A heading, what the figures are, and the figures.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    title: &'static str,
    about: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(title: &'static str, about: &'static str, columns: &[&'static str]) -> Self {
        Self { title, about, columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "{}", self.title);
        self.rows.push(cells);
    }

    pub(crate) fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| -> Map<String, Value> {
            self.columns.iter().map(ToString::to_string).zip(row.iter().map(Cell::json)).collect()
        };
        let rows: Vec<Value> = self.rows.iter().map(|row| Value::Object(object(row))).collect();
        serde_json::json!({ "title": self.title, "about": self.about, "rows": rows })
    }

    pub(crate) fn markdown(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(Cell::text).collect()).collect();
        let width = |at: usize| rows.iter().chain([&header]).map(|row| row[at].chars().count()).max().unwrap_or(3);
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = format!("\n## {}\n\n{}\n\n", self.title, self.about);
        text.push_str(&line(&header));
        let _ = writeln!(text, "|{}|", widths.iter().map(|w| "-".repeat(w + 2)).collect::<Vec<_>>().join("|"));
        rows.iter().for_each(|row| text.push_str(&line(row)));
        text
    }
}
