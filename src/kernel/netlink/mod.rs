//! Linux over netlink.
