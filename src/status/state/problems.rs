//! The last problems with the API server.

use std::time::Duration;

use serde::Serialize;

use super::seconds;
use crate::status::ApiProblem;

#[derive(Serialize)]
pub(super) struct Last<'a> {
    request: &'static str,
    class: &'static str,
    problem: &'a str,
    seconds_ago: f64,
}

impl<'a> Last<'a> {
    pub(super) fn of(problem: &'a ApiProblem, now: Duration) -> Self {
        let ApiProblem { request, class, text, at } = problem;
        Self { request, class, problem: text, seconds_ago: seconds(now.saturating_sub(*at)) }
    }
}
