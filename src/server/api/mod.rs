//! What the server answers: the agents' protocol and the pool API.

pub(crate) mod agent;
pub(crate) mod pools;
