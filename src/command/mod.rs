//! The subcommands that are not a world of their own (`agent` is one, `lab` another).

pub mod cleanup;
pub mod plan;
