//! Linux in memory.
