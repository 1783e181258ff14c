//! The machine on which a row of the matrix runs, its server, and what stands around
//! them.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::fault::Fault;
use super::phase::Held;
use super::truth;
use crate::fleet::{Fleet, configuration};
use crate::machine::wait_for;
use crate::pool::{Pool, Run};

/// How many lines the plan writes before Terraform plans, two a second.
pub(super) const PLAN_LINES: u32 = 8;

/// How many lines the apply writes, one a second.
pub(super) const STEPS: u32 = 8;

/// Where the library is that tells programs another time (Debian's faketime).
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// The machine and what belongs to it.
pub(super) struct Rig<'a> {
    fleet: &'a Fleet,
    pool: &'a Pool<'a>,
    fault: Fault,
    work: tempfile::TempDir,
    /// Of the cell at hand: every run changes something, and can be told by it.
    tag: String,
}

impl<'a> Rig<'a> {
    /// Installs an agent on the machine, as the fault needs it.
    pub(super) fn set_up(fleet: &'a Fleet, pool: &'a Pool<'a>, fault: Fault) -> Self {
        let work = tempfile::tempdir().expect("a folder");
        let rig = Self { fleet, pool, fault, work, tag: String::new() };
        if fault == Fault::DiskFull {
            rig.make_small_disk();
        }
        rig.fleet.install(match fault {
            Fault::DiskFull => "--ignore disk",
            Fault::OutOfMemory => "--memory 256",
            _ => "",
        });
        truth::record(fleet, rig.disk());
        if fault == Fault::ClockJump {
            rig.take_clocks_over();
        }
        pool.hooks(serde_json::json!({ "pre-plan": format!(
            "i=0; while [ $i -lt {PLAN_LINES} ]; do i=$((i + 1)); \
             echo \"plan line $i of {PLAN_LINES}\"; sleep 0.5; done"
        )}));
        fleet.wait_for_agent(pool, "idle");
        rig
    }

    /// The pool that the agent is in.
    pub(super) fn pool(&self) -> &Pool<'_> {
        self.pool
    }

    /// Runs a shell line on the machine.
    pub(super) fn shell(&self, line: &str) -> String {
        self.fleet.shell(line)
    }

    /// What the containers of a run wrote, by the engine's own files.
    pub(super) fn truth(&self, run: &Run) -> Vec<truth::Container> {
        truth::of_run(self.fleet, self.disk(), run)
    }

    /// Begins a cell.
    pub(super) fn begin(&mut self, tag: &str) {
        self.tag = tag.to_owned();
    }

    /// The mark of the cell's run.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// Queues a run that writes lines while it plans and while it applies; with
    /// `eats`, that part of it needs more memory than it has.
    pub(super) fn start_run(&self, eats: Option<&str>) -> Run {
        let folder = self.work.path().join(&self.tag);
        std::fs::create_dir(&folder).expect("a folder");
        let text = terraform(&self.tag, eats);
        std::fs::write(folder.join("main.tf"), text).expect("a file");
        self.pool.start_run(&folder)
    }

    /// Whether the agent has written a task down.
    pub(super) fn has_running_task(&self) -> bool {
        !self.shell("ls /var/lib/scalr-agent/tasks").is_empty()
    }

    /// The ids of the containers that run.
    pub(super) fn running_containers(&self) -> String {
        self.fleet.running_containers()
    }

    /// Waits until nothing of any run is left on the machine, and the agent waits for
    /// the next.
    pub(super) fn wait_for_rest(&self) {
        wait_for("all containers to be removed", Duration::from_secs(60), || {
            self.fleet.containers().is_empty().then_some(())
        });
        wait_for("all tasks to be forgotten", Duration::from_secs(30), || {
            (!self.has_running_task()).then_some(())
        });
        self.fleet.wait_for_agent(self.pool, "idle");
    }

    /// Lets a run go on that was kept where it was.
    pub(super) fn release(&self, held: Held) {
        match held {
            Held::No => {}
            // A fault may have ended it, and systemd started another one.
            Held::Engine => drop(self.shell("pkill -CONT -x dockerd || :")),
            Held::Network => self.restore_network(),
        }
    }

    /// Stops the engine where it is.
    pub(super) fn stop_engine(&self) {
        self.shell("pkill -STOP -x dockerd");
    }

    /// Pulls the machine's cable.
    pub(super) fn cut_network(&self) {
        self.port("down");
    }

    /// Plugs it in.
    pub(super) fn restore_network(&self) {
        self.port("up");
    }

    /// The switch's end of the cable of the world's first machine.
    fn port(&self, state: &str) {
        let command = ["ip", "link", "set", "p1920210", state];
        let output = self.fleet.world.command("server", &command).output().expect("ip starts");
        assert!(output.status.success(), "{}", crate::machine::text(&output));
    }

    /// Kills the server.
    pub(super) fn kill_server(&self) {
        self.fleet.kill_server();
    }

    /// Starts it again, with what it had.
    pub(super) fn start_server(&self) {
        match self.fault {
            Fault::ClockJump => self.fleet.start_server(&self.faketime()),
            _ => self.fleet.start_server(&[]),
        }
    }

    /// Starts Apache at the server's address and with its certificate, as a proxy
    /// whose server is not there.
    pub(super) fn start_proxy(&self) -> Child {
        let folder = self.work.path().display();
        self.make_certificate();
        let modules = ["mpm_event", "authz_core", "alias", "ssl"]
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .concat();
        let settings = format!(
            "{modules}ServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\n\
             User nobody\nGroup nogroup\nServerName pools.test\nListen 192.0.2.1:8443\n\
             ErrorLog {folder}/proxy.log\nCustomLog {folder}/asked \"%r %>s\"\n\
             SSLEngine on\nSSLCertificateFile {folder}/cert.pem\n\
             SSLCertificateKeyFile {folder}/key.pem\nRedirectMatch 502 ^/\n"
        );
        let file = self.work.path().join("apache.conf");
        std::fs::write(&file, settings).expect("a file");
        let command = [
            "apache2".as_ref(),
            "-D".as_ref(),
            "FOREGROUND".as_ref(),
            "-f".as_ref(),
            file.as_os_str(),
        ];
        self.fleet.world.start("server", &command, &self.work.path().join("proxy.log"))
    }

    /// A certificate as the server's, by the same authority.
    fn make_certificate(&self) {
        let (ca, folder) = (self.fleet.ca(), self.work.path());
        let output = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=pools.test", "-addext", "subjectAltName=DNS:pools.test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-CA")
            .arg(&ca)
            .arg("-CAkey")
            .arg(ca.with_file_name("ca-key.pem"))
            .arg("-keyout")
            .arg(folder.join("key.pem"))
            .arg("-out")
            .arg(folder.join("cert.pem"))
            .output()
            .expect("openssl starts");
        assert!(output.status.success(), "{}", crate::machine::text(&output));
    }

    /// Ends it; it was asked, and answered 502.
    pub(super) fn end_proxy(&self, mut proxy: Child) {
        let read = |name: &str| std::fs::read_to_string(self.work.path().join(name));
        let asked = read("asked").unwrap_or_default();
        assert!(
            asked.contains("heartbeat HTTP/1.1 502"),
            "the proxy answered no heartbeat: {asked}{}",
            read("proxy.log").unwrap_or_default()
        );
        // Its workers end with it when its signal comes.
        let process = nix::unistd::Pid::from_raw(i32::try_from(proxy.id()).expect("an id"));
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).expect("it is ours");
        proxy.wait().expect("it ends");
        std::fs::remove_file(self.work.path().join("asked")).expect("it was just read");
    }

    /// A disk of its own for agent and engine, which can be filled without harm.
    fn make_small_disk(&self) {
        self.shell(
            "mkdir -p /srv/disk && mount -t tmpfs -o size=1g tmpfs /srv/disk && \
             for name in scalr-agent scalr-docker; do \
             cp -a /var/lib/$name /srv/disk/ && mount --bind /srv/disk/$name /var/lib/$name; \
             done",
        );
    }

    /// The folder whose disk the engine's data is on.
    fn disk(&self) -> &'static str {
        if self.fault == Fault::DiskFull { "/srv/disk" } else { "/var/lib" }
    }

    /// Leaves not one byte free.
    pub(super) fn fill_disk(&self) {
        self.shell(
            "dd if=/dev/zero of=/srv/disk/full bs=64k 2>/dev/null; df /srv/disk | grep -q 100%",
        );
    }

    /// Takes that back.
    pub(super) fn make_room(&self) {
        self.shell("rm /srv/disk/full");
    }

    /// Has agent and server ask a library for the time.
    fn take_clocks_over(&self) {
        // Of Debian's package faketime.
        self.fleet.copy(Path::new(FAKETIME), "/usr/lib/faketime.so", "0644");
        self.set_clocks("+0");
        self.shell(
            "printf '[Service]\\nEnvironment=LD_PRELOAD=/usr/lib/faketime.so \
             FAKETIME_TIMESTAMP_FILE=/var/lib/scalr-agent-clock FAKETIME_NO_CACHE=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1\\n' >/etc/systemd/system/scalr-agent.service.d/z.conf && \
             systemctl daemon-reload && systemctl restart scalr-agent",
        );
        self.kill_server();
        self.start_server();
    }

    fn faketime(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={FAKETIME}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.clock().display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    fn clock(&self) -> PathBuf {
        self.work.path().join("clock")
    }

    /// Sets the clocks of agent and server this far from the right time.
    pub(super) fn set_clocks(&self, offset: &str) {
        std::fs::write(self.clock(), offset).expect("a file");
        self.fleet.world.feed(
            &self.fleet.machine,
            "cat >/var/lib/scalr-agent-clock && chmod 0644 /var/lib/scalr-agent-clock",
            offset.as_bytes(),
        );
    }

    /// Waits until systemd says this of the agent.
    pub(super) fn wait_for_unit(&self, state: &str) {
        wait_for(&format!("the agent's unit to be {state}"), Duration::from_secs(90), || {
            (self.shell("systemctl is-active scalr-agent || :") == state).then_some(())
        });
    }

    /// Gives the agent a token again.
    pub(super) fn new_token(&self) {
        let token = self.pool.new_token();
        self.fleet.world.feed(
            &self.fleet.machine,
            "umask 077 && cat >/root/pool.token && \
             scalr-agent configure --token-file /root/pool.token >/dev/null && \
             systemctl reset-failed scalr-agent && systemctl start scalr-agent",
            token.as_bytes(),
        );
    }

    /// Cuts the machine's power.
    pub(super) fn power_off(&self) {
        self.fleet.world.power(&self.fleet.machine, "off");
    }

    /// Waits until the machine has shut itself down.
    pub(super) fn wait_until_off(&self) {
        wait_for("the machine to be off", Duration::from_secs(150), || {
            self.fleet.world.is_off(&self.fleet.machine).then_some(())
        });
        self.power_off();
    }

    /// Boots it again.
    pub(super) fn power_on(&self) {
        self.fleet.world.power(&self.fleet.machine, "on");
    }
}

/// The configuration of a cell's run.
fn terraform(tag: &str, eats: Option<&str>) -> String {
    let has_data = configuration().join("terraform_data.tf").is_file();
    let (kind, replaced_by) = match has_data {
        true => ("terraform_data", format!("triggers_replace = {{ tag = \"{tag}\" }}")),
        false => ("null_resource", format!("triggers = {{ tag = \"{tag}\" }}")),
    };
    let tag_of_before = if has_data { "triggers_replace.tag" } else { "triggers.tag" };
    // So many combinations that Terraform itself needs more than it has.
    let combinations = match eats {
        Some("plan") => "length(setproduct(range(1000), range(1000), range(20)))",
        _ => "0",
    };
    let eat = match eats {
        Some("apply") => r#"awk 'BEGIN { s = sprintf("%900000000s", ""); print length(s) }'"#,
        _ => "",
    };
    format!(
        "resource \"{kind}\" \"before\" {{\n  {replaced_by}\n}}\n\
         resource \"{kind}\" \"work\" {{\n  depends_on = [{kind}.before]\n  {replaced_by}\n  \
         provisioner \"local-exec\" {{\n    command = <<-EOT\n      \
         i=0\n      while [ $i -lt {STEPS} ]; do\n        i=$((i + 1))\n        \
         echo \"step $i of {STEPS}\"\n        sleep 1\n      done\n      {eat}\n    EOT\n  }}\n}}\n\
         output \"combinations\" {{\n  value = {combinations}\n}}\n\
         output \"before\" {{\n  value = {kind}.before.{tag_of_before}\n}}\n\
         output \"work\" {{\n  value = \"${{{kind}.work.{tag_of_before}}}\"\n}}\n"
    )
}
