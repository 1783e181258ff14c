//! A task's log: masked, kept on disk, sent to the server.

pub mod spool;
pub mod upload;
