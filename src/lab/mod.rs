//! The lab: machines made of network namespaces, an API server in memory, and a tour through both.

pub mod apiserver;
