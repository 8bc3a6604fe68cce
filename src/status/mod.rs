//! TODO(status)
