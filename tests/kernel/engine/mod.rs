//! Our engine on a real kernel, checked with iproute2.

mod batches;
mod dumps;
mod ears;
mod flannel;
mod forward;
mod legacy;
mod links;
mod rows;
mod shape;

use crate::sandbox::Test;

/// Every test of the engine.
pub(crate) fn all() -> Vec<Test> {
    [
        batches::all(),
        dumps::all(),
        ears::all(),
        flannel::all(),
        forward::all(),
        legacy::all(),
        links::all(),
        rows::all(),
        shape::all(),
    ]
    .concat()
}
