//! What a node needs around the tables.

pub mod cni;
pub mod file;
pub mod subnet_env;
