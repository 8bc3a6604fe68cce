//! The decisions: what the kernel should hold, in which order it gets there, what an error number
//! means. Pure: no clock, no I/O, no async.

pub mod desired;
