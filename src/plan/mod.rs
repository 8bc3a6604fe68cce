//! The decisions: what the kernel should hold, in which order it gets there, what a refusal means,
//! when to try again. Pure: no clock, no I/O, no async; it speaks [`crate::model`] and nothing else.

pub mod attempts;
mod beside;
pub mod bridge;
pub mod cause;
pub mod claims;
mod contested;
pub mod desired;
pub mod device;
pub mod direct;
pub mod filter;
pub mod forward;
pub mod handover;
mod leaving;
pub mod leftovers;
pub mod local;
pub mod looks;
pub mod next;
pub mod ownership;
pub mod pace;
pub mod shadow;
pub mod tenure;
pub mod underlay;
pub mod verdict;
