//! A real registry in the server's namespace: TLS by a private authority, and a
//! password.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::fleet::{Fleet, kit};
use crate::machine::{text, wait_for};

/// Where it is, for everybody in the world.
pub(super) const HOST: &str = "pools.test:5000";

/// Who may push and pull.
pub(super) const USER: &str = "robot";
pub(super) const PASSWORD: &str = "pa55word";

/// The registry; it ends with its world.
pub(super) struct Registry<'a> {
    fleet: &'a Fleet,
    /// The certificate of the authority, in PEM.
    pub authority: String,
    folder: TempDir,
    process: Child,
}

impl<'a> Registry<'a> {
    /// Starts one that is empty.
    pub(super) fn start(fleet: &'a Fleet) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = make_certificates(folder.path());
        let write = |name: &str, content: &[u8]| {
            std::fs::write(folder.path().join(name), content).expect("a file");
        };
        // -B: bcrypt, which is all that the registry takes.
        let line = Command::new("htpasswd")
            .args(["-Bbn", USER, PASSWORD])
            .output()
            .expect("htpasswd starts");
        assert!(line.status.success(), "{}", text(&line));
        write("htpasswd", &line.stdout);
        let settings = json!({
            "version": "0.1",
            "storage": {
                "filesystem": {"rootdirectory": folder.path().join("images")},
                "delete": {"enabled": true},
            },
            "auth": {"htpasswd": {"realm": "tests", "path": folder.path().join("htpasswd")}},
            "http": {"addr": "192.0.2.1:5000", "tls": {
                "certificate": folder.path().join("cert.pem"),
                "key": folder.path().join("key.pem"),
            }},
        });
        // YAML has JSON in it.
        write("config.yml", settings.to_string().as_bytes());
        let (program, config) = (kit().join("docker-registry"), folder.path().join("config.yml"));
        let command = [program.as_os_str(), "serve".as_ref(), config.as_os_str()];
        let process = fleet.world.start("server", &command, &folder.path().join("log"));
        let registry = Self { fleet, authority, folder, process };
        wait_for("the registry to answer", Duration::from_secs(30), || {
            registry.curl(&["--silent"], "").status.success().then_some(())
        });
        registry
    }

    /// Makes the tag `arm` of `repository` a list with one entry, for linux/arm64:
    /// the image with this digest, whose manifest has `size` bytes.
    pub(super) fn list_for_arm(&self, repository: &str, digest: &str, size: u64) {
        let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
        let list = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [{
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": digest, "size": size,
            "platform": {"architecture": "arm64", "os": "linux"},
        }]});
        let arguments = [
            "--request",
            "PUT",
            "--header",
            &format!("Content-Type: {kind}"),
            "--data",
            &list.to_string(),
        ];
        let answer = self.curl(&arguments, &format!("{repository}/manifests/arm"));
        assert!(answer.status.success(), "{}", text(&answer));
    }

    /// Deletes the image with this digest; its tags go with it.
    pub(super) fn delete(&self, repository: &str, digest: &str) {
        let answer =
            self.curl(&["--request", "DELETE"], &format!("{repository}/manifests/{digest}"));
        assert!(answer.status.success(), "{}", text(&answer));
    }

    /// From now on everything that the world's server sends is this slow.
    pub(super) fn send_megabits(&self, megabits: u32) {
        let rate = format!("{megabits}mbit");
        let line = ["tc", "qdisc", "add", "dev", "lan", "root", "tbf", "rate", &rate];
        let shaping = [&line[..], &["burst", "64kb", "latency", "400ms"]].concat();
        let done = self.fleet.world.command("server", &shaping).output().expect("tc starts");
        assert!(done.status.success(), "{}", text(&done));
    }

    fn curl(&self, arguments: &[&str], path: &str) -> std::process::Output {
        let ca = self.folder.path().join("ca.pem");
        let (user, address) = (format!("{USER}:{PASSWORD}"), format!("https://{HOST}/v2/{path}"));
        let mut command = vec!["curl", "--fail-with-body", "--user", &user, "--cacert"];
        command.push(ca.to_str().expect("a plain path"));
        command.extend(arguments);
        command.push(&address);
        self.fleet.world.command("server", &command).output().expect("curl starts")
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let end: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("--- the end of the registry's log, backwards:\n{}", end.join("\n"));
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Writes an authority's certificate, and one for the registry with its key;
/// gives the first.
fn make_certificates(folder: &Path) -> String {
    let key = || KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    // Of one name with the other certificate, it would be taken for that.
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority_key = key();
    let authority = params.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = Issuer::new(params, authority_key);
    let own_key = key();
    let host = HOST.split(':').next().expect("a name").to_owned();
    let own = CertificateParams::new(vec![host])
        .and_then(|params| params.signed_by(&own_key, &issuer))
        .expect("a certificate");
    for (name, pem) in
        [("ca.pem", &authority), ("cert.pem", &own.pem()), ("key.pem", &own_key.serialize_pem())]
    {
        std::fs::write(folder.join(name), pem).expect("a file");
    }
    authority
}
