//! What a node needs around the tables.

pub mod cni;
pub mod file;
pub mod host;
pub mod subnet_env;
