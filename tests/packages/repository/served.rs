//! `repository verify URL`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use super::workshop;
use tests::workshop::text;

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn a_served_repository_is_verified_also_through_a_proxy() {
    let (workshop, key) = workshop();
    let root = workshop.path("served/packages");
    workshop.packages("1.0.0");
    workshop.setup_program("x86_64");
    workshop.publish(&root, &["--key", &key]);
    let address = serve(workshop.path("served"));
    let verify = |url: &str, variables: &[(&str, &str)]| {
        let mut command = workshop.setup();
        command.args(["repository", "verify", url]).envs(variables.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), text(&output))
    };
    for url in [format!("http://{address}"), format!("http://{address}/packages/")] {
        let (code, said) = verify(&url, &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("all there, whole and signed"), "{said}");
    }
    // The name is known to the proxy alone.
    let proxy = format!("http://{address}");
    let (code, said) = verify("http://pools.invalid", &[("http_proxy", &proxy)]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = verify("http://pools.invalid", &[]);
    assert_eq!(code, Some(8), "{said}");
    let (code, said) = verify(&format!("http://{address}/elsewhere"), &[]);
    assert_eq!(
        (code, said.contains("no repository made by scalr-agent-setup")),
        (Some(2), true),
        "{said}"
    );

    let deb = "apt/pool/main/s/scalr-agent/scalr-agent_1.0.0-1_arm64.deb";
    fs::remove_file(root.join(deb)).unwrap();
    let (code, said) = verify(&format!("http://{address}"), &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&format!("{deb}: it is not there")), "{said}");
}

/// A plain web server of a folder, and a proxy to it for any name, for as long as
/// the tests run.
fn serve(root: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&stream.unwrap(), &root);
        }
    });
    address
}

fn answer(mut stream: &TcpStream, root: &Path) {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let request = lines.next().unwrap();
    lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
    let target = request.split(' ').nth(1).unwrap();
    let path = target
        .split_once("://")
        .map_or(target, |(_scheme, rest)| rest.find('/').map_or("/", |begin| &rest[begin..]));
    let content = fs::read(root.join(path.trim_start_matches('/')));
    let status = if content.is_ok() { "200 OK" } else { "404 Not Found" };
    let content = content.unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content).unwrap();
}
