//! TODO(lab)
