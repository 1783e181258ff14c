//! A machine whose only way out is a forward proxy.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::fleet::{DOCKER, Fleet, URL, configuration, refusal};
use crate::machine::wait_for;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn with_no_route_but_a_proxy_the_agent_registers_and_runs() {
    let fleet = Fleet::boot("ubuntu-18.04", &["--only-proxy"]);
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    let open = Proxy::start(&fleet, 8888, None);
    refusal(&fleet.world.try_shell(&fleet.machine, &format!("curl -fsS {URL}/healthz")));

    // The shell that installs has the proxy, as an administrator's has.
    let proxy = "http://proxy.test:8888";
    fleet.shell(&format!(
        "export http_proxy={proxy} https_proxy={proxy}; {}",
        Fleet::install_line("--no-start")
    ));
    fleet.shell(&format!("scalr-agent-setup proxy --http {proxy} --https {proxy}"));
    fleet.shell("systemctl start scalr-docker scalr-agent");
    fleet.load_image();
    fleet.wait_for_agent(&pool, "idle");
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    pool.wait_for_status(&run, "applied");
    assert!(open.log().contains("CONNECT pools.test:8443"), "{}", open.log());

    // A second call with the same proxy restarts nothing.
    let agent = "systemctl show --property=MainPID scalr-agent scalr-docker";
    let before = fleet.shell(agent);
    fleet.shell(&format!("scalr-agent-setup proxy --http {proxy} --https {proxy}"));
    assert_eq!(fleet.shell(agent), before);

    // One with a password: it works, and nobody reads the password.
    let closed = Proxy::start(&fleet, 8889, Some(("robot", "pa55word")));
    let proxy = "http://robot:pa55word@proxy.test:8889";
    fleet.world.feed(
        &fleet.machine,
        "read -r url && scalr-agent-setup proxy --http \"$url\" --https \"$url\"",
        format!("{proxy}\n").as_bytes(),
    );
    wait_for("a connection through the second proxy", Duration::from_secs(60), || {
        closed.log().contains("CONNECT pools.test:8443").then_some(())
    });
    fleet.wait_for_agent(&pool, "idle");
    let shown = fleet.shell(
        "systemctl show scalr-agent scalr-docker; scalr-agent-setup proxy show; \
         journalctl --no-pager --unit=scalr-agent --unit=scalr-docker",
    );
    assert!(!shown.contains("pa55word"), "the password shows");
    assert_eq!(fleet.shell("stat --format=%a /etc/scalr-agent/proxy.env"), "600");

    fleet.shell("scalr-agent-setup proxy remove");
    fleet.wait_for_agent(&pool, "offline");
    assert_eq!(fleet.shell("ls -A /etc/systemd/system/scalr-docker.service.d 2>/dev/null"), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_and_dnf_reach_the_repository_through_the_agents_proxy() {
    for (flavour, of_all, update) in [
        ("ubuntu-18.04", "apt-get update", "apt-get -o APT::Update::Error-Mode=any update 2>&1"),
        (
            "centos-8",
            "yum -y makecache",
            "yum -y --setopt=scalr-agent.metadata_expire=1 \
             --setopt=scalr-agent.skip_if_unavailable=0 --disablerepo=* \
             --enablerepo=scalr-agent makecache 2>&1",
        ),
    ] {
        let fleet = Fleet::boot(flavour, &["--only-proxy"]);
        let _pool = fleet.pool();
        let _closed = Proxy::start(&fleet, 8889, Some(("robot", "pa55word")));
        let settings = "find /etc/apt /etc/yum* /etc/dnf -type f 2>/dev/null | sort";
        let before = fleet.shell(settings);
        let install = Fleet::install_line("--no-start --http-proxy \"$url\"");
        fleet.world.feed(
            &fleet.machine,
            &format!("read -r url && export https_proxy=$url && {install}"),
            b"http://robot:pa55word@proxy.test:8889\n",
        );
        fleet.shell(update);
        let secret = "find /etc/apt /etc/yum* /etc/dnf -type f 2>/dev/null | \
                      xargs grep -l pa55word | xargs stat --format=%a";
        assert_eq!(fleet.shell(secret), "600", "{flavour}");
        // Others can still look packages up.
        let look_up = "if command -v yum; then yum list available; else apt-cache policy apt; fi";
        fleet.shell(&format!(
            "HOME=/tmp setpriv --reuid 65534 --clear-groups sh -c '{look_up}' 2>&1"
        ));

        fleet.shell("scalr-agent-setup proxy remove --no-restart");
        refusal(&fleet.world.try_shell(&fleet.machine, update));
        fleet.shell(of_all);
        fleet.shell("scalr-agent-setup uninstall");
        assert_eq!(fleet.shell(settings), before);
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_https_proxy_is_trusted_by_the_given_authorities_and_named_where_it_is_not() {
    for (flavour, update) in [
        ("ubuntu-18.04", "apt-get -o APT::Update::Error-Mode=any update 2>&1"),
        ("centos-8", "dnf -y --disablerepo=* --enablerepo=scalr-agent --refresh makecache 2>&1"),
    ] {
        let fleet = Fleet::boot(flavour, &["--only-proxy"]);
        let pool = fleet.pool();
        let _open = Proxy::start(&fleet, 8888, None);
        let proxy = TlsProxy::start(&fleet, 8890, 8888);
        fleet.distrust_server();
        let of_server = std::fs::read_to_string(fleet.ca()).expect("the server's authority");
        fleet.put("/root/server.pem", "0600", of_server.as_bytes());
        fleet.put("/root/both.pem", "0600", (of_server + &proxy.authority).as_bytes());
        fleet.copy(&tests::checkout("scripts/install.sh"), "/root/install.sh", "0600");
        let install = |script: &str, ca: &str| {
            format!(
                "{script} --url {URL} --token-file /root/pool.token --ca-cert /root/{ca} \
                 --http-proxy https://proxy.test:8890 2>&1"
            )
        };
        let script = "sh /root/install.sh";
        let try_shell = |line: &str| fleet.world.try_shell(&fleet.machine, line);
        let said = refusal(&try_shell(&install(script, "server.pem")));
        assert!(said.contains("The certificate of the proxy proxy.test:8890 is not"), "{said}");

        fleet.shell(&install(script, "both.pem"));
        fleet.wait_for_agent(&pool, "idle");
        fleet.shell(update);
        // The engine gets through to what is no registry.
        let said = refusal(&try_shell(&format!("{DOCKER} pull pools.test:8443/run:1")));
        assert!(said.contains("404"), "{said}");

        let setup = "scalr-agent-setup install --dry-run";
        let said = refusal(&try_shell(&install(setup, "server.pem")));
        assert!(said.contains("the proxy's certificate is of an authority"), "{said}");
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn the_given_proxy_counts_more_than_one_that_the_package_tool_has_for_all() {
    for (flavour, file, dead) in [
        (
            "ubuntu-18.04",
            "/etc/apt/apt.conf.d/01proxy",
            "Acquire::http::Proxy \"http://127.0.0.1:9\";",
        ),
        ("centos-8", "/etc/dnf/dnf.conf", "proxy=http://127.0.0.1:9"),
    ] {
        let fleet = Fleet::boot(flavour, &["--only-proxy"]);
        let _pool = fleet.pool();
        let _open = Proxy::start(&fleet, 8888, None);
        fleet.shell(&format!("printf '%s\\n' '{dead}' >>{file}"));
        let settings =
            "find /etc/apt /etc/yum* /etc/dnf -type f 2>/dev/null | sort | xargs sha256sum";
        let before = fleet.shell(settings);
        let exports = "export https_proxy=http://proxy.test:8888";
        let install = |options: &str| {
            fleet.shell(&format!("{exports}; ( {} ) 2>&1", Fleet::install_line(options)))
        };

        // The variable of a shell is for this installation alone.
        install("--no-start");
        let ours = "grep -rl proxy.test /etc/apt /etc/yum* /etc/dnf 2>/dev/null || :";
        assert_eq!(fleet.shell(ours), "", "{flavour}");
        let again = install("--no-start");
        assert!(!again.contains("Changed:"), "{again}");
        fleet.shell("scalr-agent-setup uninstall --purge");
        assert_eq!(fleet.shell(settings), before);

        install("--no-start --http-proxy http://proxy.test:8888");
        assert_ne!(fleet.shell(ours), "", "{flavour}");
        fleet.shell("scalr-agent-setup uninstall --purge");
        assert_eq!(fleet.shell(settings), before);
        fleet.shell(&format!(
            "{exports}; curl -fsSL {URL}/install.sh | \
             sh -s -- --url {URL} --repository-only --http-proxy http://proxy.test:8888"
        ));
        assert_ne!(fleet.shell(ours), "", "{flavour}");
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_proxy_that_refuses_the_login_is_named_in_the_journal_and_by_the_check() {
    let fleet = Fleet::boot("ubuntu-18.04", &["--only-proxy"]);
    let pool = fleet.pool();
    let _closed = Proxy::start(&fleet, 8889, Some(("robot", "pa55word")));
    let right = "http://robot:pa55word@proxy.test:8889";
    let with_url = |url: &str, line: &str| {
        let line = format!("read -r url && export https_proxy=$url && {line}");
        fleet.world.feed(&fleet.machine, &line, format!("{url}\n").as_bytes());
    };
    with_url(right, &Fleet::install_line("--http-proxy \"$url\""));
    fleet.wait_for_agent(&pool, "idle");
    for (url, in_journal, in_check) in [
        (
            "http://proxy.test:8889",
            "refuses those that it gets (407); set them with `scalr-agent-setup proxy --http -`",
            "the proxy requires a user and a password (407); set them with `scalr-agent-setup proxy",
        ),
        // This proxy refuses a wrong password with 401.
        (
            "http://robot:wr0ngword@proxy.test:8889",
            "check its user and password",
            "the proxy refuses its user and password (401); set the right ones with `scalr-agent-",
        ),
    ] {
        let cursor = fleet.shell("journalctl --lines=0 --show-cursor | sed -n 's/^-- cursor: //p'");
        with_url(
            url,
            "scalr-agent-setup proxy --no-restart --http \"$url\" && \
             systemctl restart --no-block scalr-agent",
        );
        let journal = format!(
            "journalctl --unit=scalr-agent --output=cat --no-pager --after-cursor='{cursor}'"
        );
        let said = wait_for("the cause in the journal", Duration::from_secs(60), || {
            let said = fleet.shell(&journal);
            said.contains(in_journal).then_some(said)
        });
        let checked = refusal(&fleet.world.try_shell(&fleet.machine, "scalr-agent-setup check"));
        let checked = checked.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(checked.contains(in_check), "{checked}");
        for said in [said, checked, fleet.shell("systemctl status scalr-agent || :")] {
            assert!(!said.contains("wr0ngword") && !said.contains("pa55word"), "{said}");
        }
    }
    with_url(right, "scalr-agent-setup proxy --http \"$url\"");
    fleet.wait_for_agent(&pool, "idle");
}

/// What takes TLS for a proxy, with a certificate of an authority of its own.
struct TlsProxy {
    process: Child,
    authority: String,
    _work: TempDir,
}

impl TlsProxy {
    fn start(fleet: &Fleet, port: u16, of_proxy: u16) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the name of what it signs, that would be taken for signed by itself.
        params.distinguished_name.push(DnType::CommonName, "Authority of the proxy");
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["proxy.test".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let work = tempfile::tempdir().expect("a work folder");
        let file = work.path().join("proxy.pem");
        std::fs::write(&file, key.serialize_pem() + &certificate.pem())
            .expect("the work folder takes files");
        let listen =
            format!("OPENSSL-LISTEN:{port},reuseaddr,fork,verify=0,cert={}", file.display());
        let connect = format!("TCP:127.0.0.1:{of_proxy}");
        let command = ["socat".as_ref(), listen.as_ref(), connect.as_ref()];
        let process = fleet.world.start("proxy", &command, &work.path().join("socat.log"));
        fleet.world.wait_until_taken("proxy", "tcp", &format!(":{port}"));
        Self { process, authority: authority.pem(), _work: work }
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A tinyproxy in the proxy's namespace.
pub(crate) struct Proxy {
    process: Child,
    work: TempDir,
}

impl Proxy {
    /// Starts one on `port`, open or for one `login` (name, password).
    pub(crate) fn start(fleet: &Fleet, port: u16, login: Option<(&str, &str)>) -> Self {
        let work = tempfile::tempdir().expect("a work folder");
        let configuration = work.path().join("tinyproxy.conf");
        let login = login
            .map_or_else(String::new, |(user, password)| format!("BasicAuth {user} {password}\n"));
        std::fs::write(
            &configuration,
            format!("Port {port}\nTimeout 600\nLogLevel Connect\n{login}"),
        )
        .expect("the work folder takes files");
        let command =
            ["tinyproxy".as_ref(), "-d".as_ref(), "-c".as_ref(), configuration.as_os_str()];
        let process = fleet.world.start("proxy", &command, &Self::log_file(&work));
        fleet.world.wait_until_taken("proxy", "tcp", &format!(":{port}"));
        Self { process, work }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(Self::log_file(&self.work)).expect("its log")
    }

    fn log_file(work: &TempDir) -> PathBuf {
        work.path().join("tinyproxy.log")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
