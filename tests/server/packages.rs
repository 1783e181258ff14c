//! What agents are installed from.

use std::fs;

use reqwest::StatusCode;

use crate::harness::Server;

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
