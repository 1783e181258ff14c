//! Downloads, with a real curl.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::thread;

use crate::host::{Host, Packages};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A server that gives these answers, one after the other; its URL.
fn server(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    thread::spawn(move || {
        for answer in answers {
            let (mut client, _) = listener.accept().unwrap();
            let request = BufReader::new(client.try_clone().unwrap());
            drop(request.lines().map_while(Result::ok).find(String::is_empty));
            drop(client.write_all(answer.as_bytes()));
        }
    });
    url
}

/// Runs a test with a real curl.
fn each(test: impl Fn(&Host)) {
    Host::each(Packages::Apt, |host| {
        host.without_tool("curl");
        symlink(which::which("curl").unwrap(), host.path("bin/curl")).unwrap();
        test(host);
    });
}

fn download(host: &Host, url: &str) -> crate::host::Said {
    host.run(&format!("read_options; work=tmp; download {url} tmp/file"))
}

#[test]
fn a_busy_server_is_asked_again() {
    each(|host| {
        let said = download(host, &server(&[BUSY, BUSY, GOOD]));
        said.went_well();
        assert_eq!(fs::read_to_string(host.path("tmp/file")).unwrap(), "hello");
        assert_eq!(said.stdout.matches("trying again").count(), 2, "{said:?}");
        download(host, &server(&[BUSY, BUSY, BUSY, GOOD])).refused(8, "cannot download http://");
    });
}

#[test]
fn a_server_that_is_not_there_is_named() {
    each(|host| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let said = download(host, &format!("http://127.0.0.1:{port}/file"));
        said.refused(8, &format!("cannot download http://127.0.0.1:{port}/file: "));
        assert_eq!(said.stdout.matches("trying again").count(), 2, "{said:?}");
    });
}

#[test]
fn a_proxy_is_named_as_the_cause_without_its_password() {
    const REQUIRED: &str = "HTTP/1.1 407 Proxy Authentication Required\r\n\
        Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const WRONG: &str =
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const FORBIDDEN: &str =
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    each(|host| {
        let through = |proxy: &str| {
            let said = host.run(&format!(
                "read_options --url https://pools.test --http-proxy http://me:hunter2@{proxy}\n\
                 use_proxy; work=tmp; pause() {{ :; }}; download https://pools.test/file tmp/file"
            ));
            assert!(!format!("{said:?}").contains("hunter2"), "{said:?}");
            said
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let said = through(&format!("127.0.0.1:{port}"));
        said.refused(
            8,
            &format!("; the proxy 127.0.0.1:{port} does not answer: check --http-proxy"),
        );
        let address = |url: String| url["http://".len()..].trim_end_matches("/file").to_owned();
        let said = through(&address(server(&[REQUIRED])));
        said.refused(8, "requires a user and a password, or refuses those");
        let said = through(&address(server(&[WRONG])));
        said.refused(8, "requires a user and a password, or refuses those");
        assert!(!said.stdout.contains("trying again"), "{said:?}");
        let said = through(&address(server(&[FORBIDDEN, FORBIDDEN, FORBIDDEN])));
        said.refused(8, "The proxy does not connect to the server: check --url");
        through("proxy.invalid:3128").refused(8, "check the proxy's name in --http-proxy");
    });
}

#[test]
fn what_is_not_there_is_asked_for_once() {
    each(|host| {
        let said = download(host, &server(&[MISSING, GOOD]));
        said.refused(8, "404");
        said.refused(8, "started with --packages?");
        assert!(!said.stdout.contains("trying again"), "{said:?}");
    });
}

#[test]
fn without_curl_it_says_what_to_install_before_anything_else() {
    Host::each(Packages::Apt, |host| {
        host.without_tool("curl");
        // The setup program could not download with it.
        host.tool("wget", "echo wget >>\"$host/calls\"\n");
        host.install("").refused(6, "Install the package curl");
        host.install("--uninstall").refused(6, "Install the package curl");
        assert_eq!(host.calls(), "");
    });
}

/// What curl 8.14 and curl 7.29 (of Enterprise Linux 7) print.
const UNTRUSTED: [&str; 2] = [
    "curl: (60) SSL certificate problem: unable to get local issuer certificate\n\
     More details here: https://curl.se/docs/sslcerts.html\n\n\
     curl failed to verify the legitimacy of the server and therefore could not\n\
     establish a secure connection to it. To learn more about this situation and\n\
     how to fix it, please visit the webpage mentioned above.\n",
    "curl: (60) Peer's Certificate issuer is not recognized.\n\
     More details here: http://curl.haxx.se/docs/sslcerts.html\n\n\
      the -k (or --insecure) option.\n",
];

#[test]
fn an_https_proxy_is_trusted_with_the_systems_authorities_and_the_given_ones() {
    Host::each(Packages::Apt, |host| {
        fs::write(host.path("ca.pem"), "of the proxy").unwrap();
        // Notes what curl trusts the proxy with, and says what curl 7.88 says then.
        host.tool(
            "curl",
            "while [ \"$1\" != --proxy-cacert ] && [ $# -gt 1 ]; do shift; done\n\
             [ ! -f \"$2\" ] || cat \"$2\" >\"$host/trusted\"\n. \"$host/answer\"\n",
        );
        let said = |proxy: &str, status: &str, text: &str| {
            let code = &text[7..9];
            let answer = format!("printf '{status}'; echo '{text}' >&2; exit {code}");
            fs::write(host.path("answer"), answer).unwrap();
            host.run(&format!(
                "read_options --url https://pools.test --https-proxy {proxy} --ca-cert ca.pem\n\
                 use_proxy; work=tmp; pause() {{ :; }}; download https://pools.test/file tmp/file"
            ))
        };
        let tls = "https://me:hunter2@proxy.test:1";
        let unknown = "curl: (60) SSL certificate problem: unable to get local issuer";
        let refused = said(tls, "000-000-0-20", unknown);
        refused.refused(8, "The certificate of the proxy proxy.test:1 is not trusted with ca.pem");
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
        let trusted = fs::read_to_string(host.path("trusted")).unwrap();
        assert!(trusted.ends_with("of the proxy"), "{trusted}");
        fs::remove_file(host.path("trusted")).unwrap();

        said(tls, "000-200-20-0", unknown).refused(8, "The server's certificate is not trusted");
        // What curl 7.88 makes of it behind such a proxy.
        said(tls, "000-200-1-0", "curl: (35) SSL_ERROR_SYSCALL")
            .refused(8, "The server's certificate is not trusted");
        for text in ["curl: (35) wrong version number", "curl: (28) SSL connection timeout"] {
            said(tls, "000-000-0-1", text).refused(8, "give its address with http://");
        }
        said(tls, "", "curl: (02) option --proxy-cacert: is unknown")
            .refused(8, "curl is too old for a proxy with https://");
        fs::remove_file(host.path("trusted")).unwrap();
        said("http://proxy.test:1", "000-200-20", unknown)
            .refused(8, "The server's certificate is not trusted");
        assert!(!host.path("trusted").exists());
    });
}

#[test]
fn an_untrusted_certificate_is_named_with_what_to_do() {
    Host::each(Packages::Apt, |host| {
        fs::write(host.path("my ca.pem"), "").unwrap();
        for text in UNTRUSTED {
            fs::write(host.path("text"), text).unwrap();
            host.tool("curl", "cat \"$host/text\" >&2\nexit 60\n");
            let reason = text.lines().next().unwrap().trim_start_matches("curl: ");
            let said = host.install("");
            said.refused(8, &format!("/packages/scalr-agent-setup-x86_64: {reason}\n"));
            said.refused(8, "certificate is not trusted. If");
            said.refused(8, "-o ca.pem https://pools.test/ca.pem && sha256sum ca.pem");
            said.refused(8, "--ca-cert ca.pem");
            assert!(!said.stdout.contains("trying again"), "{said:?}");
            let said = host.install("--ca-cert 'my ca.pem'");
            said.refused(8, "certificate is not trusted with my ca.pem. If");
        }
    });
}

#[test]
fn a_certificate_that_is_not_valid_at_this_time_is_traced_to_the_clock() {
    Host::each(Packages::Apt, |host| {
        for text in [
            "curl: (60) SSL certificate problem: certificate is not yet valid",
            "curl: (60) SSL certificate problem: certificate has expired",
            "curl: (60) Peer's Certificate has expired.",
        ] {
            fs::write(host.path("text"), text).unwrap();
            host.tool("curl", "printf '000-000-9'; cat \"$host/text\" >&2\nexit 60\n");
            let said = host.install("");
            said.refused(8, "Is the clock of this host right? It says ");
            said.refused(8, "UTC. If that is not the time, set\n  it with 'timedatectl set-ntp");
            assert!(!said.stderr.contains("--ca-cert"), "{said:?}");
            assert!(!said.stdout.contains("trying again"), "{said:?}");
        }
    });
}

#[test]
fn the_authority_of_the_option_is_used_for_downloads_and_handed_over() {
    Host::each(Packages::Apt, |host| {
        host.install("--ca-cert 'my ca.pem'").refused(2, "--ca-cert: cannot read my ca.pem");
        assert_eq!(host.calls(), "");
        fs::write(host.path("my ca.pem"), "").unwrap();
        host.install("--ca-cert 'my ca.pem'").went_well();
        let calls = host.calls();
        let downloads: Vec<&str> = calls.lines().filter(|call| call.starts_with("curl ")).collect();
        assert!(!downloads.is_empty());
        for call in downloads {
            assert!(call.contains(" --cacert my ca.pem "), "{call}");
        }
        assert!(calls.contains("--ca-cert my ca.pem"), "{calls}");
        host.install("").went_well();
        assert!(!host.calls().lines().last().unwrap().contains("ca-cert"), "{}", host.calls());
    });
}

#[test]
fn temporary_files_go_where_programs_may_run() {
    Host::each(Packages::Apt, |host| {
        let said = host.run(
            "can_run_from() { case $1 in tmp/* | /tmp/*) return 1 ;; esac; }\n\
             TMPDIR=tmp make_work_folder\n\
             echo \"$work\"; stat -c %a \"$work\"; rm -r \"$work\"",
        );
        said.went_well();
        assert!(said.stdout.starts_with("/var/tmp/scalr-agent-install."), "{said:?}");
        assert!(said.stdout.ends_with("\n700\n"), "{said:?}");
        assert!(said.stderr.contains("programs in tmp may not be run (mounted noexec?)"));
        assert!(host.files().is_empty(), "{:?}", host.files());
        let said = host.run("can_run_from() { return 1; }; TMPDIR=tmp make_work_folder");
        said.refused(11, "TMPDIR=/a/folder");
        assert!(host.files().is_empty(), "{:?}", host.files());
    });
}

#[test]
fn a_damaged_or_foreign_setup_program_is_not_kept() {
    Host::each(Packages::Apt, |host| {
        let fetch = "read_options --url https://pools.test; work=tmp machine=x86_64; fetch_setup";
        host.run(fetch).went_well();
        let good =
            fs::read_to_string(host.path("server/packages/scalr-agent-setup-x86_64")).unwrap();
        host.serve("scalr-agent-setup-x86_64", &(good + "#"));
        host.run(fetch).refused(9, "was damaged on its way");
        let program = "#!/bin/sh\necho 'GLIBC_2.17 not found' >&2\nexit 1\n";
        host.serve("scalr-agent-setup-x86_64", program);
        let sum = crate::host::sha256(host, "scalr-agent-setup-x86_64");
        host.serve("scalr-agent-setup-x86_64.sha256", &format!("{sum}  x\n"));
        host.run(fetch).refused(5, "does not run here (exit code 1): GLIBC_2.17 not found");
    });
}
