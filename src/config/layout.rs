//! Where an installation keeps what, and what it calls it.

/// The drop-ins of the agent's unit, whoever wrote them.
pub const AGENT_DROP_INS: &str = "/etc/systemd/system/scalr-agent.service.d";
