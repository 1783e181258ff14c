//! Starting and stopping.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Server, events, program};

#[tokio::test]
async fn without_a_word_on_tls_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let output = program().args(["serve", "--data"]).arg(&data).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--tls-self-signed"), "{error}");
    assert!(!data.exists(), "nothing was made");
}

#[tokio::test]
async fn the_admins_token_can_go_into_a_private_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let server = Server::start_with(&["--admin-token-file", file.to_str().unwrap()]).await;
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), server.admin);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file), 0o600);
    assert_eq!(mode(server.data.join("server.db")), 0o600);
    assert_eq!(mode(server.data.join("tls/ca-key.pem")), 0o600);
    let health = server.http.get(format!("{}/healthz", server.url)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_leaves_the_first_start_undone() {
    let folder = tempfile::tempdir().unwrap();
    let start = async |token_file: &str| {
        let mut program = program();
        program.args(["serve", "--listen", "127.0.0.1:0", "--tls-self-signed", "--data"]);
        program.arg(folder.path().join("data")).args(["--admin-token-file", token_file]);
        program.output().await.unwrap()
    };
    for _ in 0..2 {
        let output = start("/nonexistent/token").await;
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains("cannot save the admin's token: cannot write /nonexistent/token"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_stop_answers_held_polls() {
    let mut server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let polling = server.hold_poll(&agent, Vec::new()).await;
    assert_eq!(server.stop().await, Some(0));
    assert_eq!(events(polling.await.unwrap()), []);
}

#[tokio::test]
async fn a_lost_admins_token_is_replaced_while_the_server_runs() {
    let mut server = Server::start().await;
    let make = async |data: &std::path::Path| {
        program().args(["admin-token", "create", "--data"]).arg(data).output().await.unwrap()
    };
    let output = String::from_utf8(make(&server.data).await.stdout).unwrap();
    let token = output.trim().strip_prefix("Admin token: ").unwrap().to_owned();
    assert_ne!(token, server.admin);
    server.admin = token;
    server.get("/environments").await;

    let nowhere = make(&server.data.join("nowhere")).await;
    assert_eq!(nowhere.status.code(), Some(2));
}

#[tokio::test]
async fn admins_tokens_are_listed_and_revoked_on_the_host() {
    let mut server = Server::start().await;
    let run = async |args: &[&str]| {
        let mut program = program();
        program.arg("admin-token").args(args).arg("--data").arg(&server.data);
        let output = program.output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), error)
    };
    let (_, made, _) = run(&["create", "--name=ci", "--expires-in=90d"]).await;
    let token = made.trim().strip_prefix("Admin token: ").unwrap().to_owned();
    let id = token.split_once('.').unwrap().0;
    let first = server.admin.split_once('.').unwrap().0;

    server.get("/environments").await;
    let (_, listed, _) = run(&["list"]).await;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines.len() == 3 && lines[1].starts_with(first), "{listed}");
    assert!(lines[2].starts_with(id) && lines[2].ends_with("Z  ci"), "{listed}");
    assert_eq!(lines[1].matches("never").count(), 1, "it was used and never expires: {listed}");
    for token in [&token, &server.admin] {
        assert!(!listed.contains(token.split_once('.').unwrap().1), "{listed}");
    }

    assert_eq!(run(&["revoke", first]).await.0, Some(0));
    let (code, _, error) = run(&["revoke", id]).await;
    assert_eq!(code, Some(2));
    assert!(error.contains("it is the last admin's token that works"), "{error}");
    assert_eq!(run(&["revoke", id, "--force"]).await.0, Some(0));
    let (code, _, error) = run(&["revoke", id, "--force"]).await;
    assert!(code == Some(2) && error.contains("there is no admin's token"), "{error}");
    for token in [&token, &server.admin] {
        let (status, _) = server.call_with(token, Method::GET, "/environments", Value::Null).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let (_, made, _) = run(&["create"]).await;
    let new = made.trim().strip_prefix("Admin token: ").unwrap().to_owned();
    server.admin = new;
    server.get("/environments").await;
}

#[tokio::test]
async fn a_folder_has_one_server() {
    let server = Server::start().await;
    let mut second = program();
    second.args(["serve", "--listen", "127.0.0.1:0", "--tls-self-signed", "--data"]);
    let output = second.arg(&server.data).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("another server runs in"), "{error}");
}

#[tokio::test]
async fn a_packages_folder_without_a_repository_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (data, bare, file) =
        (folder.path().join("data"), folder.path().join("bare"), folder.path().join("file"));
    let empty = folder.path().join("empty");
    fs::create_dir(&bare).unwrap();
    fs::create_dir(&empty).unwrap();
    fs::write(bare.join("scalr-agent_0.1.0-1_amd64.deb"), "").unwrap();
    fs::write(&file, "").unwrap();
    for (packages, why) in [
        (folder.path().join("none"), "No such file"),
        (file, "Not a directory"),
        (empty, "no signed repository"),
        (bare, "it has packages, and no signed repository of them"),
    ] {
        let mut serve = program();
        serve.args(["serve", "--tls-self-signed", "--listen=127.0.0.1:0", "--data"]).arg(&data);
        let output = serve.env("SCALR_SERVER_PACKAGES", packages).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(why) && error.contains("SCALR_SERVER_PACKAGES"), "{error}");
        assert!(!data.exists(), "nothing was made");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_the_variable_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (name, value, code, why) in [
        ("LISTEN", taken.as_str(), 1, "Address already in use"),
        ("LISTEN", "192.0.2.99:8443", 1, "to an address of this host"),
        ("LISTEN", ":8443", 2, "invalid value ':8443' for '--listen <ADDR:PORT>'"),
        ("DATA", file, 1, "File exists"),
        ("DATA", "/proc/no-folder", 1, "cannot make the data folder"),
        ("URL", "pools.example.com", 2, "scheme, host and port, for example https://"),
        ("URL", "", 2, "scheme, host and port"),
        ("KEEP_RUNS", "0", 2, "it takes days"),
        ("ULR", "https://pools.example.com", 2, "Did you mean SCALR_SERVER_URL?"),
        ("TLS_SELF_SIGNED", "maybe", 2, "invalid value 'maybe'"),
        ("METRICS_TOKEN_FILE", "/nonexistent", 1, "No such file"),
        ("METRICS_TOKEN_FILE", file, 2, "openssl rand -hex 32"),
    ] {
        let name = format!("SCALR_SERVER_{name}");
        let mut serve = program();
        serve.arg("serve").env("SCALR_SERVER_LISTEN", "127.0.0.1:0");
        serve.env("SCALR_SERVER_DATA", folder.path().join("data"));
        if !name.contains("TLS") {
            serve.env("SCALR_SERVER_TLS_SELF_SIGNED", "yes");
        }
        let output = serve.env(&name, value).output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}={value}: {error}");
        assert!(error.contains(why) && error.contains(&name), "{name}={value}: {error}");
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_with_the_variables_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let pair = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, pair().cert.pem()).unwrap();
    fs::write(&key, pair().signing_key.serialize_pem()).unwrap();
    let none = folder.path().join("none");
    for (cert, key, why) in [
        (&cert, &key, "keys may not be consistent"),
        (&cert, &cert, "cannot read the key"),
        (&none, &key, "cannot read the certificate"),
    ] {
        let mut serve = program();
        serve.args(["serve", "--listen=127.0.0.1:0", "--data"]).arg(folder.path().join("data"));
        serve.env("SCALR_SERVER_TLS_CERT", cert).env("SCALR_SERVER_TLS_KEY", key);
        let output = serve.output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(why) && error.contains("(SCALR_SERVER_TLS_KEY)"), "{error}");
    }
    let mut half = program();
    half.args(["serve", "--data"]).arg(folder.path().join("data"));
    let output = half.env("SCALR_SERVER_TLS_CERT", &cert).output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("the variable SCALR_SERVER_TLS_KEY sets --tls-key <FILE>"), "{error}");
}

#[tokio::test]
async fn systemd_hears_that_it_listens_and_not_that_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let socket = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut received = [0; 64];
    let start = |options: &[&str]| {
        let mut program = program();
        program.args(["serve", "--listen=127.0.0.1:0", "--data"]).arg(folder.path().join("data"));
        program.args(options).env("NOTIFY_SOCKET", folder.path().join("notify"));
        program
    };
    assert_eq!(start(&[]).output().await.unwrap().status.code(), Some(2));
    assert!(socket.recv(&mut received).is_err(), "it was refused");
    let mut server = start(&["--insecure-http"]).spawn().unwrap();
    let ready = async {
        loop {
            if let Ok(length) = socket.recv(&mut received) {
                return String::from_utf8_lossy(&received[..length]).into_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let ready = tokio::time::timeout(std::time::Duration::from_secs(60), ready).await.unwrap();
    assert_eq!(ready.trim(), "READY=1");
    server.kill().await.unwrap();
}

#[tokio::test]
async fn it_speaks_tls_with_a_given_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let ca = pair.cert.pem();
    let server =
        Server::start_bare(&["--tls-cert", cert, "--tls-key", key], Some(ca.as_bytes())).await;
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    server.get("/environments").await;

    let mut broken = program();
    broken.args(["serve", "--listen", "127.0.0.1:0", "--tls-cert", key, "--tls-key", key]);
    let output = broken.arg("--data").arg(folder.path().join("x")).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("there is no certificate in {key}")), "{error}");
}

#[tokio::test]
async fn an_address_that_agents_would_refuse_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for options in [
        &["--insecure-http", "--url", "http://pools.example.com"][..],
        // The default is the host's name, and plain.
        &["--insecure-http"],
    ] {
        let mut server = program();
        server.args(["serve", "--listen", "0.0.0.0:0"]).args(options).arg("--data").arg(&data);
        let output = server.output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {error}");
        assert!(error.contains("Set --url (SCALR_SERVER_URL) to https://…"), "{error}");
        assert!(!data.exists(), "nothing was made");
    }
}

#[tokio::test]
async fn it_speaks_plain_http_when_configured() {
    let server = Server::start_bare(&["--insecure-http"], None).await;
    assert!(server.url.starts_with("http://127.0.0.1:"), "{}", server.url);
    server.get("/environments").await;
    assert!(server.log().contains("plain HTTP"), "{}", server.log());
}
