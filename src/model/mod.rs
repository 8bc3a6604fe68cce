//! The nouns: addresses, what the API server says of a node, what a kernel table holds, and the
//! operations that change one. Plain values; nothing here knows a socket, an API client or a clock.

pub mod addr;
pub mod backoff;
pub mod device;
pub mod filter;
pub mod forward;
pub mod hash;
pub mod host;
pub mod leftover;
mod mac;
pub mod nft;
pub mod node;
pub mod op;
pub mod settings;
pub mod table;
pub mod traffic;

pub use addr::{ByFamily, Family, IfIndex, IfName, Mac, Subnet, Vni};
pub use device::DeviceSpec;
pub use host::{Address, DefaultRoute, Host, Link, LinkKind, VxlanAttributes};
pub use node::{NodeRecord, OwnNode, Peer, Snapshot, Standing, Unusable};
pub use op::{Ack, Dev, LinkOp, Op, Refusal};
pub use settings::{Backend, Overlay, Settings, UnderlayRules};
pub use table::{Entry, FdbKey, Neighbour, Route, RouteKey, Tables};
