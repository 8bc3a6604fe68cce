//! What a node needs around the tables.

pub mod subnet_env;
