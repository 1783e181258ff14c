//! What the server answers: the agents' protocol and the pool API.

pub mod agent;
pub mod pools;
