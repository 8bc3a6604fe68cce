//! TODO(node)
