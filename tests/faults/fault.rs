//! What goes wrong, and how it ends.

use std::time::{Duration, Instant};

use super::phase::{Held, Phase};
use super::rig::Rig;
use crate::machine::wait_for;
use crate::pool::Run;

/// Longer than a lease (40 s), so that what an agent had is taken from it.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(50);

/// The agent's process.
const AGENT: &str = "$(systemctl show --property=MainPID scalr-agent | cut -d= -f2)";

/// Several heartbeats.
const A_WHILE: Duration = Duration::from_secs(12);

/// Within which a run whose agent is gone has to be told.
pub(super) const TOLD_WITHIN: Duration = Duration::from_secs(45);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of the agent.
    KillAgent,
    /// `kill -9` of dockerd.
    KillEngine,
    /// `kill -9` of the server, which is away for a while.
    KillServer,
    /// The machine's cable is out for longer than a lease.
    CutNetwork,
    /// What answers in the server's place is Apache, with its page for 502.
    ProxyAnswers,
    /// No byte is free on the disk of agent and engine.
    DiskFull,
    /// The clocks of agent and server go five hours forward, and back.
    ClockJump,
    /// The pool's token is deleted.
    RevokedToken,
    /// The run needs more memory than it has.
    OutOfMemory,
    /// The machine's power is cut for longer than a lease.
    PowerCut,
    /// The machine is shut down as it should be, and booted again.
    ShutDown,
    /// systemd restarts agent, engine and containerd at once.
    UnitsRestarted,
    /// The agent is stopped (SIGSTOP) for longer than a lease, and goes on.
    StoppedAgent,
}

/// How a cell's run has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Applied, as if nothing had been.
    Applied,
    /// Its plan failed, with this in its log.
    PlanErrored(&'static str),
    /// Its apply failed, with this in its log and with the state of what was done.
    ApplyErrored(&'static str),
}

impl Fault {
    /// As the matrix names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KillAgent => "kill -9 agent",
            Self::KillEngine => "kill -9 dockerd",
            Self::KillServer => "kill -9 server",
            Self::CutNetwork => "cut network",
            Self::ProxyAnswers => "proxy answers HTML 502",
            Self::DiskFull => "disk full",
            Self::ClockJump => "clock jump",
            Self::RevokedToken => "revoked token",
            Self::OutOfMemory => "container out of memory",
            Self::PowerCut => "machine loses power",
            Self::ShutDown => "machine shut down",
            Self::UnitsRestarted => "units restarted",
            Self::StoppedAgent => "agent stopped and revived",
        }
    }

    /// Whether there is such a cell; if not, why.
    pub(super) fn applies_to(self, phase: Phase) -> Result<(), &'static str> {
        match (self, phase) {
            (Self::OutOfMemory, Phase::Planning | Phase::Applying) => Ok(()),
            (Self::OutOfMemory, _) => Err("no container runs"),
            _ => Ok(()),
        }
    }

    /// How a run has to end that has this fault in `phase`.
    pub(super) fn end(self, phase: Phase) -> End {
        match (self, phase) {
            (Self::OutOfMemory, Phase::Planning) => End::PlanErrored("configure --memory MB"),
            (Self::OutOfMemory, _) => End::ApplyErrored("configure --memory MB"),
            (Self::RevokedToken | Self::ShutDown, Phase::Planning) => {
                End::PlanErrored("the agent was stopped")
            }
            (Self::RevokedToken | Self::ShutDown, Phase::Applying) => {
                End::ApplyErrored("the agent was stopped")
            }
            // The engine makes no container then.
            (Self::DiskFull, Phase::Claimed) => End::PlanErrored("no space left on device"),
            // Terraform writes half a plan then, and does not say so.
            (Self::DiskFull, Phase::Planning) => End::PlanErrored("not written whole"),
            (Self::PowerCut, Phase::Applying) => End::ApplyErrored("ended from outside"),
            _ => End::Applied,
        }
    }

    /// Lets it happen, and end; gives how long it took until the run was reported to be
    /// without its agent, where that has to be told.
    pub(super) fn happen(
        self,
        rig: &Rig<'_>,
        phase: Phase,
        run: Option<&Run>,
        held: Held,
    ) -> Option<Duration> {
        match self {
            Self::KillAgent => drop(rig.shell(&format!("kill -KILL {AGENT}"))),
            Self::KillEngine => drop(rig.shell("pkill -KILL -x dockerd")),
            Self::KillServer => {
                rig.kill_server();
                std::thread::sleep(A_WHILE);
                rig.start_server();
            }
            Self::CutNetwork => {
                rig.cut_network();
                let told = told(rig, phase, run);
                rig.release(held);
                rig.restore_network();
                return told;
            }
            Self::ProxyAnswers => {
                rig.kill_server();
                let proxy = rig.start_proxy();
                // It has to be heard.
                rig.release(held);
                std::thread::sleep(A_WHILE);
                rig.end_proxy(proxy);
                rig.start_server();
                return None;
            }
            Self::DiskFull => {
                rig.fill_disk();
                std::thread::sleep(A_WHILE / 2);
                rig.release(held);
                std::thread::sleep(A_WHILE / 2);
                rig.make_room();
                return None;
            }
            Self::ClockJump => {
                rig.set_clocks("+5h");
                std::thread::sleep(A_WHILE);
                rig.set_clocks("+0");
                std::thread::sleep(A_WHILE);
            }
            Self::RevokedToken => {
                rig.pool().revoke_tokens();
                rig.release(held);
                rig.wait_for_unit("failed");
                rig.new_token();
                return None;
            }
            Self::OutOfMemory => {
                // The run does it by itself.
            }
            Self::PowerCut => {
                // With it goes whatever held the run.
                rig.power_off();
                let told = told(rig, phase, run);
                rig.power_on();
                return told;
            }
            Self::ShutDown => {
                rig.shell("systemctl poweroff --no-block");
                rig.release(held);
                rig.wait_until_off();
                rig.power_on();
                return None;
            }
            Self::UnitsRestarted => {
                // Not waited for: a held engine ends when it is released.
                rig.shell("systemctl --no-block restart scalr-agent scalr-docker scalr-containerd");
            }
            Self::StoppedAgent => {
                rig.shell(&format!("kill -STOP {AGENT}"));
                let told = told(rig, phase, run);
                rig.release(held);
                rig.shell(&format!("kill -CONT {AGENT}"));
                return told;
            }
        }
        rig.release(held);
        None
    }
}

/// Waits until the server tells that the run's agent is gone; without a run that is
/// with one, for as long as that would take.
fn told(rig: &Rig<'_>, phase: Phase, run: Option<&Run>) -> Option<Duration> {
    let (kind, status) = match phase {
        Phase::Planning => ("plan", "queued"),
        Phase::Applying | Phase::Uploading => ("apply", "unreachable"),
        // What is claimed looks like what is queued.
        Phase::Idle | Phase::Claimed | Phase::Waiting => {
            std::thread::sleep(LONGER_THAN_A_LEASE);
            return None;
        }
    };
    let (begun, run) = (Instant::now(), run.expect("a run is in this phase"));
    wait_for(&format!("the {kind} to be told {status}"), TOLD_WITHIN, || {
        (rig.pool().phase_status(run, kind) == status).then_some(())
    });
    Some(begun.elapsed())
}
