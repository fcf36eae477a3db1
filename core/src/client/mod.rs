//! The client.

pub(crate) mod backend;
