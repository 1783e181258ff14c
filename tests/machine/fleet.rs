//! A server and a machine in a world of their own, ready for an installation.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::machine::{World, text, wait_for};
use crate::pool::{Pool, Run};

/// Where the server is, for everybody in a world.
pub(crate) const URL: &str = "https://pools.test:8443";

/// The image that the kit's archive is imported as.
pub(crate) const IMAGE: &str = "scalr-run:test";

/// The flavour of the machine that others are copied from.
const WITH_PACKAGE: &str = "ubuntu-18.04";

/// The command of the private engine, as an administrator would type it.
pub(crate) const DOCKER: &str =
    "/usr/lib/scalr-agent/engine/docker --host unix:///run/scalr-docker/docker.sock";

/// Makes `docker ps` give the ids of containers that do not wait for a run.
const OF_RUNS: &str =
    "--no-trunc --format '{{.ID}} {{.Names}}' | sed --quiet '/ scalr-ahead-/!s/ .*//p'";

/// A machine of one flavour and the server it is to be installed from.
pub(crate) struct Fleet {
    /// The machine's name, which is its flavour.
    pub machine: String,
    /// Dropped before the folder that its processes write to.
    pub world: World,
    work: TempDir,
    server: Mutex<Child>,
}

impl Fleet {
    /// The same with a machine of Ubuntu 18.04 that has the package and the runs' image already,
    /// for tests of what the agent does: unpacking both takes most of an installation's time.
    /// [`Fleet::install`] still does all that it does to such a host.
    pub(crate) fn boot_with_package() -> Self {
        static MODEL: OnceLock<World> = OnceLock::new();
        let model = MODEL.get_or_init(with_package);
        Self::boot(WITH_PACKAGE, &["--like", &model.like(WITH_PACKAGE)])
    }

    /// Boots a machine, starts the server, and has the machine trust it.
    pub(crate) fn boot(flavour: &str, options: &[&str]) -> Self {
        let world = World::new();
        world.boot(flavour, options);
        let work = tempfile::tempdir_in(kit().parent().expect("a kit is in a folder"))
            .expect("a work folder");
        link_tree(&kit().join("repository"), &work.path().join("repository"));
        let server = Mutex::new(spawn_server(&world, &work, &[]));
        let fleet = Self { machine: flavour.into(), world, work, server };
        fleet.wait_for_server();
        fleet.trust_server(&fleet.machine);
        fleet
    }

    /// Kills the server.
    pub(crate) fn kill_server(&self) {
        let mut server = self.server.lock().expect("nothing panics while it holds the server");
        server.kill().expect("it is ours");
        server.wait().expect("it ends");
    }

    /// Starts the server again with what it had, by the words `before` its own, such
    /// as `env NAME=VALUE`.
    pub(crate) fn start_server(&self, before: &[String]) {
        let mut server = self.server.lock().expect("nothing panics while it holds the server");
        *server = spawn_server(&self.world, &self.work, before);
        drop(server);
        self.wait_for_server();
    }

    /// Boots a further machine of the same flavour, which trusts the server too
    /// and has the pool's token; gives its name.
    pub(crate) fn boot_another(&self, pool: &Pool<'_>) -> String {
        let name = format!("{}-another", self.machine);
        self.world.boot(&self.machine, &["--name", &name]);
        self.trust_server(&name);
        self.give_token(&name, pool);
        name
    }

    /// Lets runs know the server's name, too: a name server beside it answers them,
    /// until the world ends.
    pub(crate) fn serve_names(&self) {
        self.serve_names_at("192.0.2.1");
    }

    /// The same at one of the server's addresses.
    pub(crate) fn serve_names_at(&self, address: &str) {
        let listen = format!("--listen-address={address}");
        let command = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            &listen,
            "--bind-interfaces",
            "--user=root",
            "--pid-file",
        ];
        let log = self.work.path().join("names.log");
        drop(self.world.start("server", &command.map(OsStr::new), &log));
        self.world.wait_until_taken("server", "udp", &format!("{address}:53"));
        self.shell(&format!("echo nameserver {address} >/etc/resolv.conf"));
    }

    /// A pool on the server; its token goes to /root/pool.token on the machine.
    pub(crate) fn pool(&self) -> Pool<'_> {
        let authorization = self.work.path().join("authorization");
        std::fs::write(&authorization, format!("Authorization: Bearer {}", self.admin_token()))
            .expect("the work folder takes files");
        let pool = Pool::make(&self.world, URL, &self.ca(), &authorization);
        pool.variable("SECRET_WORD", "shell", true, "open sesame");
        self.give_token(&self.machine, &pool);
        pool
    }

    fn give_token(&self, machine: &str, pool: &Pool<'_>) {
        self.world.put(machine, "/root/pool.token", "0600", pool.token.as_bytes());
    }

    /// What the server serves as packages: links into the kit, to be replaced
    /// and never written to.
    pub(crate) fn repository(&self) -> PathBuf {
        self.work.path().join("repository")
    }

    /// Has the server trust the key that its packages have now.
    pub(crate) fn trust_key(&self) {
        let key = std::fs::read(self.repository().join("scalr-agent.asc")).expect("a key");
        let output = Command::new(kit().join("bin/scalr-server"))
            .args(["trust-key", "--sha256", &hex::encode(Sha256::digest(key)), "--data"])
            .arg(self.work.path().join("data"))
            .arg("--packages")
            .arg(self.repository())
            .output()
            .expect("the server's program starts");
        assert!(output.status.success(), "{}", text(&output));
    }

    /// The line that a person pastes, with `options` for `scalr-agent-setup install`. Here it fails
    /// when its download does; as pasted, `sh` would have nothing to run, and nothing to tell.
    pub(crate) fn install_line(options: &str) -> String {
        format!(
            "{{ curl -fsSL {URL}/install.sh || echo exit 7; }} | \
             sh -s -- --url {URL} --token-file /root/pool.token {options}"
        )
    }

    /// Installs with the curl-piped script and loads the runs' image.
    pub(crate) fn install(&self, options: &str) {
        self.install_on(&self.machine, options);
    }

    /// The same on any of its machines.
    pub(crate) fn install_on(&self, machine: &str, options: &str) {
        self.world.shell(machine, &Self::install_line(options));
        self.load_image_on(machine);
    }

    /// Loads the runs' image and makes it the agent's.
    pub(crate) fn load_image(&self) {
        self.load_image_on(&self.machine);
    }

    fn load_image_on(&self, machine: &str) {
        let has_image = self.world.try_shell(machine, &format!("{DOCKER} image inspect {IMAGE}"));
        if !has_image.status.success() {
            import_image(&self.world, machine);
        }
        self.world.shell(machine, &format!("scalr-agent configure --image={IMAGE}"));
        self.world.shell(machine, "systemctl restart scalr-agent");
    }

    /// Writes a file of the machine, as [`World::put`] does.
    pub(crate) fn put(&self, path: &str, mode: &str, content: &[u8]) {
        self.world.put(&self.machine, path, mode, content);
    }

    /// Copies a file of this host to the machine's `path`.
    pub(crate) fn copy(&self, file: &Path, path: &str, mode: &str) {
        self.put(path, mode, &std::fs::read(file).expect("the file can be read"));
    }

    /// Runs a shell line on the machine.
    pub(crate) fn shell(&self, line: &str) -> String {
        self.world.shell(&self.machine, line)
    }

    /// Waits until the pool has one agent, and that has `status`.
    pub(crate) fn wait_for_agent(&self, pool: &Pool<'_>, status: &str) {
        wait_for(&format!("the agent to be {status}"), Duration::from_secs(90), || {
            let agents = pool.agents();
            (agents == [status]).then_some(())
        });
    }

    /// The ids of all containers, running or not, but those that wait for a run.
    pub(crate) fn containers(&self) -> String {
        self.shell(&format!("{DOCKER} ps --all {OF_RUNS}"))
    }

    /// The ids of the containers that have a run.
    pub(crate) fn running_containers(&self) -> String {
        self.running_containers_on(&self.machine)
    }

    /// The same on another machine.
    pub(crate) fn running_containers_on(&self, machine: &str) -> String {
        self.world.shell(machine, &format!("{DOCKER} ps {OF_RUNS}"))
    }

    /// The id of a run's container on the engine of this client. One that was started ahead has
    /// no label of the run.
    pub(crate) fn container_of(&self, docker: &str, run: &Run) -> String {
        self.shell(&format!(
            "for id in $({docker} ps --quiet --no-trunc --filter name=^task-); do \
             {docker} exec $id grep -q {run} /scalr/run/environment && echo $id || :; done"
        ))
    }

    /// The only container that has a run, as `docker inspect` tells it.
    pub(crate) fn running_container(&self) -> serde_json::Value {
        let id = wait_for("a run's container", Duration::from_secs(60), || {
            Some(self.running_containers()).filter(|id| !id.is_empty())
        });
        let all: serde_json::Value =
            serde_json::from_str(&self.shell(&format!("{DOCKER} inspect {id}"))).expect("JSON");
        assert_eq!(all.as_array().map(Vec::len), Some(1), "one container: {all}");
        all[0].clone()
    }

    fn wait_for_server(&self) {
        wait_for("the server to answer", Duration::from_secs(30), || {
            let ca = self.ca();
            let address = format!("{URL}/healthz");
            let command = [
                "curl".as_ref(),
                "--fail".as_ref(),
                "--silent".as_ref(),
                "--cacert".as_ref(),
                ca.as_os_str(),
                address.as_ref(),
            ];
            let answer = self.world.command("server", &command).output().expect("curl starts");
            answer.status.success().then_some(())
        });
    }

    /// A company's image trusts the company's authority from the start. It is put where the
    /// distribution's tool looks for it, and by hand into the file that the tool makes: that takes
    /// the tool half a second of a processor.
    fn trust_server(&self, machine: &str) {
        let ca = std::fs::read(self.ca()).expect("the server wrote its authority");
        let mut line = "tee /usr/local/share/ca-certificates/pools.crt".to_owned();
        if machine.starts_with("centos") {
            line += " /etc/pki/ca-trust/source/anchors/pools.crt";
        }
        self.world.feed(machine, &format!("{line} >>/etc/ssl/certs/ca-certificates.crt"), &ca);
    }

    /// Takes the trust back, for those who bring it themselves.
    pub(crate) fn distrust_server(&self) {
        self.shell(if self.machine.starts_with("centos") {
            "rm /etc/pki/ca-trust/source/anchors/pools.crt /usr/local/share/ca-certificates/pools.crt && \
             update-ca-certificates --fresh 2>&1"
        } else {
            "rm /usr/local/share/ca-certificates/pools.crt && update-ca-certificates --fresh 2>&1"
        });
    }

    /// The token of the server's admin.
    pub(crate) fn admin_token(&self) -> String {
        let token = std::fs::read_to_string(self.work.path().join("admin.token"));
        token.expect("the server wrote the admin's token").trim().to_owned()
    }

    /// What the server has logged.
    pub(crate) fn server_log(&self) -> String {
        std::fs::read_to_string(self.work.path().join("server.log")).expect("the server's log")
    }

    /// The file with the server's own authority, on this host.
    pub(crate) fn ca(&self) -> PathBuf {
        self.work.path().join("data/tls/ca.pem")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.world.journal_end(&self.machine));
        }
        // Waited for, so that the world has no process left to end.
        if let Ok(server) = self.server.get_mut() {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// A world with one machine, which is off: the package is installed, the runs' image loaded, and
/// nothing configured. It is gone with this process.
fn with_package() -> World {
    let world = World::new();
    world.boot(WITH_PACKAGE, &[]);
    let packages = std::fs::read_dir(kit().join("packages")).expect("the kit has packages");
    let deb = packages
        .map(|entry| entry.expect("the kit can be read").path())
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .expect("the kit has a deb");
    let deb = std::fs::read(deb).expect("the deb can be read");
    world.put(WITH_PACKAGE, "/root/agent.deb", "0644", &deb);
    world.shell(WITH_PACKAGE, "dpkg --install /root/agent.deb && systemctl start scalr-docker");
    import_image(&world, WITH_PACKAGE);
    // What two machines must not share, as a maker of cloud images leaves it.
    world.shell(
        WITH_PACKAGE,
        "systemctl stop scalr-docker && rm -r /root/agent.deb /var/log/journal/* && \
         : >/etc/machine-id",
    );
    world.power(WITH_PACKAGE, "off");
    world
}

/// Makes the kit's archive an image of the private engine.
fn import_image(world: &World, machine: &str) {
    let image = std::fs::read(kit().join("run-image.tar")).expect("the kit has an image");
    world.feed(machine, &format!("{DOCKER} import - {IMAGE}"), &image);
}

/// The folder of programs, packages and the rest that `scripts/test` made.
pub(crate) fn kit() -> PathBuf {
    let folder = std::env::var_os("SCALR_AGENT_KIT")
        .expect("SCALR_AGENT_KIT names the kit's folder: run these tests with scripts/test");
    PathBuf::from(folder)
}

/// The Terraform configuration that runs are made of.
pub(crate) fn configuration() -> PathBuf {
    kit().join("configuration")
}

/// A configuration with one resource, called `name`, whose creation runs
/// `command`.
pub(crate) fn creating(name: &str, command: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let has_data = configuration().join("terraform_data.tf").is_file();
    let kind = if has_data { "terraform_data" } else { "null_resource" };
    let text = format!(
        "resource \"{kind}\" \"{name}\" {{\n  provisioner \"local-exec\" {{\n    \
         command = <<-EOT\n{command}\n    EOT\n  }}\n}}\n"
    );
    std::fs::write(folder.path().join("main.tf"), text).expect("a file");
    folder
}

/// A number that an environment's variable has, else the other one.
pub(crate) fn setting((variable, otherwise): (&str, u32)) -> u32 {
    std::env::var(variable).map_or(otherwise, |value| {
        value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}"))
    })
}

fn spawn_server(world: &World, work: &TempDir, before: &[String]) -> Child {
    let program = kit().join("bin/scalr-server");
    let data = work.path().join("data");
    let packages = work.path().join("repository");
    let token = work.path().join("admin.token");
    let command: [&OsStr; 13] = [
        program.as_ref(),
        "serve".as_ref(),
        "--listen".as_ref(),
        "192.0.2.1:8443".as_ref(),
        "--url".as_ref(),
        URL.as_ref(),
        "--tls-self-signed".as_ref(),
        "--data".as_ref(),
        data.as_ref(),
        "--packages".as_ref(),
        packages.as_ref(),
        "--admin-token-file".as_ref(),
        token.as_ref(),
    ];
    let command: Vec<&OsStr> = before.iter().map(OsStr::new).chain(command).collect();
    world.start("server", &command, &work.path().join("server.log"))
}

/// A copy that takes no room: its files are links.
fn link_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("the work folder takes folders");
    for entry in std::fs::read_dir(from).expect("the kit has a repository") {
        let entry = entry.expect("the kit can be read");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            link_tree(&from, &to);
        } else {
            std::fs::hard_link(from, to).expect("the work folder is on the kit's disk");
        }
    }
}

/// What a command said when it was to fail.
///
/// # Panics
/// When it did not.
pub(crate) fn refusal(output: &std::process::Output) -> String {
    assert!(!output.status.success(), "it was to fail: {}", text(output));
    text(output)
}
