//! The lab: machines made of network namespaces, an API server in memory, and a tour through both.

pub mod apiserver;
pub mod link;
pub mod netns;
pub mod ping;
pub mod rows;
mod sandbox;
pub mod topology;
