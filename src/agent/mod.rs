//! TODO(agent)
