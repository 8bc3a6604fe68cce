//! Every knob: `net-conf.json`, flags and environment. Raw strings become typed values here, once.
//!
//! A mistake is an error before anything else has happened; what is ignored is said in a notice.

pub mod argv;
pub mod commands;
pub mod flags;
mod json;
pub mod netconf;
pub mod values;

pub use commands::{CleanupConfig, CniConfig, ConfigError, LabConfig, LogConfig, PlanConfig, RunConfig, Task, parse};
pub use netconf::{NetConf, NetConfError};
