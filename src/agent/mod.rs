//! The running agent: the loops, and the only place that reads a clock.
//!
//! ```text
//! watch task ──Snapshot──► reconciler thread ──Report──► announcer task (annotations)
//!                              ▲      │                  subnet.env keeper
//!                        netlink events                  status server
//! ```
//!
//! The reconciler is a thread of its own because everything it does blocks in the kernel; the rest
//! waits on sockets and shares one thread.

pub mod clock;
pub mod reconciler;
