//! What a node needs around the tables.

use serde::Serialize;

use crate::status::{Cni, CniState, FlannelRules};

#[derive(Serialize)]
pub(super) struct Flannels<'a> {
    removed: u64,
    stay: &'a [String],
}

impl<'a> Flannels<'a> {
    pub(super) fn of(rules: &'a FlannelRules) -> Self {
        Self { removed: rules.removed, stay: &rules.stays }
    }
}

#[derive(Serialize)]
pub(super) struct CniConf<'a> {
    file: &'a str,
    form: &'static str,
    state: &'static str,
    because: Option<&'a str>,
    used_instead: Option<&'a str>,
    written: u64,
    failed: u64,
}

impl<'a> CniConf<'a> {
    pub(super) fn of(cni: &'a Cni) -> Self {
        Self {
            file: &cni.file,
            form: cni.form,
            state: cni.state.label(),
            because: match &cni.state {
                CniState::Failed(problem) => Some(problem),
                CniState::NotYet | CniState::InPlace => None,
            },
            used_instead: cni.instead.as_deref(),
            written: cni.written,
            failed: cni.failed,
        }
    }
}

#[derive(Serialize)]
pub(super) struct HostProblem<'a> {
    problem: &'static str,
    because: &'a str,
}

impl<'a> HostProblem<'a> {
    pub(super) fn of((problem, because): &'a (&'static str, String)) -> Self {
        Self { problem, because }
    }
}
