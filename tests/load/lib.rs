//! Simulated agents, for tests and measurements of the server. They speak the real protocol
//! over TLS, each with connections and an address of its own, and run nothing: a task waits
//! for a while, sends a log and ends as a plan without changes.
//!
//! | part | what it does |
//! |---|---|
//! | [`site`] | a server process, with a pool and workspaces |
//! | [`fleet`] | the agents, and what they measure |
//! | `agent` | one of them |
//! | [`figures`] | minimum, median, p99 and maximum, and how they grow |
//! | [`plot`] | a drawing of that |

pub mod figures;
pub mod fleet;
pub mod plot;
pub mod site;

mod agent;
