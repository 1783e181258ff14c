//! What agents are installed from.

use std::fs;

use std::path::Path;
use std::process::Command;

use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};

use crate::harness::Server;

const PROGRAM: &str = "scalr-agent-setup-x86_64";

#[tokio::test]
async fn the_install_script_and_the_definitions_name_this_server() {
    let server = Server::start().await;
    let get = async |path: &str| {
        let answer = server.http.get(format!("{}{path}", server.url)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let (status, script) = get("/install.sh").await;
    assert_eq!(status, StatusCode::OK);
    assert!(script.contains(&format!("\nSERVER_URL='{}'\n", server.url)));
    let (_, sources) = get("/packages/scalr-agent.sources").await;
    assert!(sources.contains(&format!("URIs: {}/packages/apt\n", server.url)), "{sources}");
    let (_, repo) = get("/packages/scalr-agent.repo").await;
    assert!(repo.contains(&format!("baseurl={}/packages/yum\n", server.url)), "{repo}");
    let (_, repo) = get("/packages/scalr-agent-el7.repo").await;
    assert!(repo.contains(&format!("baseurl={}/packages/yum-el7\n", server.url)), "{repo}");
    let (status, why) = get("/packages/apt/dists/stable/InRelease").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(why.contains("without --packages"), "{why}");
}

#[tokio::test]
async fn packages_are_served_in_parts_and_only_when_they_are_new() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("apt")).unwrap();
    fs::write(folder.path().join("apt/a.deb"), "0123456789").unwrap();
    fs::write(folder.path().join("scalr-agent.asc"), "KEY").unwrap();
    let server = Server::start_with(&["--packages", folder.path().to_str().unwrap()]).await;
    let get = |path: &str| server.http.get(format!("{}/packages/{path}", server.url));

    let whole = get("apt/a.deb").send().await.unwrap();
    let modified = whole.headers()["last-modified"].clone();
    assert_eq!(whole.headers()["cache-control"], "max-age=604800");
    assert_eq!(whole.text().await.unwrap(), "0123456789");
    let rest = get("apt/a.deb").header("Range", "bytes=4-").send().await.unwrap();
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(rest.text().await.unwrap(), "456789");
    let unchanged = get("apt/a.deb").header("If-Modified-Since", modified).send().await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    let key = get("scalr-agent.asc").send().await.unwrap();
    assert_eq!(key.headers()["cache-control"], "no-cache");
    assert_eq!(key.text().await.unwrap(), "KEY");
    let rendered = get("scalr-agent.repo").send().await.unwrap();
    assert_eq!(rendered.status(), StatusCode::OK, "also with packages");
    let none = get("scalr-agent-el7.repo").send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
    assert!(none.text().await.unwrap().contains("--type rpm-el7"));
    fs::create_dir(folder.path().join("yum-el7")).unwrap();
    let rendered = get("scalr-agent-el7.repo").send().await.unwrap();
    assert_eq!(rendered.status(), StatusCode::OK);
    assert_eq!(get("apt/b.deb").send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

/// Whoever can write the packages' folder cannot choose what root runs on hosts.
#[tokio::test]
async fn the_install_script_is_for_what_the_first_key_signed() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let packages = folder.path();
    let keys = ["ours", "other"].map(|name| new_key(home.path(), name));
    let publish = |key: &str, program: &str| {
        fs::write(packages.join(PROGRAM), program).unwrap();
        let sum = sha256(program.as_bytes());
        fs::write(packages.join(format!("{PROGRAM}.sha256")), format!("{sum}  x\n")).unwrap();
        let arguments = ["--armor", "--yes", "--detach-sign", "--local-user", key, PROGRAM];
        gpg(home.path(), packages, &arguments);
        sum
    };
    let export = |key: &str| {
        let public = gpg(home.path(), packages, &["--armor", "--export", key]);
        fs::write(packages.join("scalr-agent.asc"), &public).unwrap();
        sha256(&public)
    };
    let (first, sum) = (export(&keys[0]), publish(&keys[0], "first"));
    let mut server = Server::start_with(&["--packages", packages.to_str().unwrap()]).await;
    let script = async |server: &Server| {
        let answer = server.http.get(format!("{}/install.sh", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.unwrap()
    };
    let pinned = |script: &str, key: &str, sum: &str| {
        script.contains(&format!("KEY_SHA256='{key}'\nSETUP_SHA256='x86_64:{sum}'\n"))
    };
    assert!(pinned(&script(&server).await, &first, &sum));
    // Published again, by the same key.
    let sum = publish(&keys[0], "second, of another size");
    assert!(pinned(&script(&server).await, &first, &sum));

    let refuses = |script: &str| {
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(9), "{script}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("not signed with the key that it trusts"), "{said}");
    };
    // Another program, with a right checksum: unsigned, and signed by somebody else.
    let bad = "#!/bin/sh\necho bad\n";
    let signature = fs::read(packages.join(format!("{PROGRAM}.asc"))).unwrap();
    publish(&keys[1], bad);
    refuses(&script(&server).await);
    fs::write(packages.join(format!("{PROGRAM}.asc")), signature).unwrap();
    refuses(&script(&server).await);
    fs::remove_file(packages.join(format!("{PROGRAM}.asc"))).unwrap();
    refuses(&script(&server).await);
    // And with its key, also after another start.
    let second = export(&keys[1]);
    let sum = publish(&keys[1], bad);
    refuses(&script(&server).await);
    server.crash_and_restart().await;
    refuses(&script(&server).await);
    let key = server.http.get(format!("{}/packages/scalr-agent.asc", server.url));
    assert_eq!(sha256(&key.send().await.unwrap().bytes().await.unwrap()), first);

    // Until somebody accepts that key by its checksum.
    let accept = |sum: &str| {
        let program = env!("CARGO_BIN_EXE_scalr-server-under-test");
        let data = server.data.as_os_str();
        let arguments = ["trust-key", "--sha256", sum, "--packages"];
        Command::new(program)
            .args(arguments)
            .arg(packages)
            .arg("--data")
            .arg(data)
            .output()
            .unwrap()
    };
    assert_eq!(accept(&first).status.code(), Some(9));
    refuses(&script(&server).await);
    assert_eq!(accept(&second).status.code(), Some(0));
    assert!(pinned(&script(&server).await, &second, &sum));
}

/// A key's fingerprint.
fn new_key(home: &Path, name: &str) -> String {
    let arguments = ["--passphrase", "", "--quick-generate-key", name, "rsa2048", "sign"];
    gpg(home, home, &arguments);
    let list = gpg(home, home, &["--with-colons", "--list-keys", name]);
    let list = String::from_utf8(list).unwrap();
    let line = list.lines().find(|line| line.starts_with("fpr:")).unwrap();
    line.split(':').nth(9).unwrap().to_owned()
}

fn gpg(home: &Path, folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--quiet", "--homedir"]).arg(home).args(arguments);
    let output = command.current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}
