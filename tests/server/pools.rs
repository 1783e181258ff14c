//! The pool API.

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, error, id, resource};

#[tokio::test]
async fn what_is_not_there_is_reported_in_the_known_words() {
    let server = Server::start().await;
    let not_found = [
        ("/agent-pools/ap-123", "AgentPool with ID 'ap-123'"),
        ("/access-tokens/at-1", "AccessToken with ID 'at-1'"),
        ("/accounts/acc-1", "Account with ID 'acc-1'"),
        ("/agents/agent-1", "Agent with ID 'agent-1'"),
        ("/environments/env-1", "Environment with ID 'env-1'"),
        ("/workspaces/ws-1", "Workspace with ID 'ws-1'"),
        ("/runs/run-1", "Run with ID 'run-1'"),
        ("/configuration-versions/cv-1", "ConfigurationVersion with ID 'cv-1'"),
    ];
    for (path, what) in not_found {
        let (status, document) = server.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(error(&document), (&*format!("{what} not found or user unauthorized."), "", ""));
    }

    let body = resource(json!({ "name": "x" }), &[("environment", "env-1234")]);
    let (status, document) = server.call(Method::POST, "/workspaces", body).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let detail = "Environment with ID 'env-1234' not found or user unauthorized.";
    let pointer = "/data/relationships/environment";
    assert_eq!(error(&document), ("Invalid Relationship", detail, pointer));

    let many = json!({ "workspaces": { "data": [{ "type": "workspaces", "id": "ws-323" }] } });
    let body = json!({ "data": { "attributes": { "name": "x" }, "relationships": many } });
    let (status, document) = server.call(Method::POST, "/agent-pools", body).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let detail = "Relationship 'workspaces' with ID 'ws-323' not found or user unauthorized.";
    let pointer = "/data/relationships/workspaces";
    assert_eq!(error(&document), ("Invalid Relationship", detail, pointer));
    let pools = server.get("/agent-pools").await;
    assert_eq!(pools["meta"]["pagination"]["total-count"], 0, "nothing was made");

    let (status, _) = server.call(Method::GET, "/nonsense", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, document) =
        server.call(Method::GET, "/runs?filter[colour]=red", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error(&document).1.contains("There is no filter[colour] here"), "{document}");
}

#[tokio::test]
async fn bad_attributes_are_pointed_at_and_change_nothing() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let environment = [("environment", site.environment.as_str())];
    let workspace = [("workspace", site.workspace.as_str())];
    // With its key and the NUL at its end, one byte more than Linux passes on.
    let too_long = "x".repeat(128 * 1024 - "long=".len());
    let refused = [
        ("/agent-pools", json!({}), "name", &[][..]),
        ("/agent-pools", json!({ "name": "pool" }), "name", &[]),
        ("/agent-pools", json!({ "name": " x" }), "name", &[]),
        ("/agent-pools", json!({ "name": "y", "default": "yes" }), "default", &[]),
        ("/environments", json!({ "name": "default" }), "name", &[]),
        ("/workspaces", json!({ "name": "main" }), "name", &environment),
        (
            "/workspaces",
            json!({ "name": "z", "terraform-version": "latest" }),
            "terraform-version",
            &environment,
        ),
        ("/vars", json!({ "key": "a b", "category": "shell" }), "key", &workspace),
        ("/vars", json!({ "key": "a", "category": "secret" }), "category", &workspace),
        ("/vars", json!({ "key": "a", "category": "shell", "hcl": true }), "hcl", &workspace),
        ("/vars", json!({ "key": "_", "category": "shell" }), "key", &workspace),
        (
            "/vars",
            json!({ "key": "long", "category": "shell", "value": too_long }),
            "value",
            &workspace,
        ),
    ];
    for (path, attributes, name, related) in refused {
        let body = resource(attributes, related);
        let (status, document) = server.call(Method::POST, path, body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {body}: {document}");
        let pointer = format!("/data/attributes/{name}");
        assert_eq!((error(&document).0, error(&document).2), ("Invalid Attribute", &*pointer));
    }
    for list in ["/agent-pools", "/environments", "/workspaces"] {
        assert_eq!(server.get(list).await["meta"]["pagination"]["total-count"], 1, "{list}");
    }
    for (value, category) in [(&too_long[1..], "shell"), (&too_long, "terraform")] {
        let variable = json!({ "key": "long", "category": category, "value": value });
        server.create("/vars", variable, &workspace).await;
    }
    let (status, _) = server.call(Method::POST, "/agent-pools", json!([1])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.create("/agent-pools", json!({ "name": name }), &[]).await;
    }
    let page = server.get("/agent-pools?page[size]=2&page[number]=1").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    let pagination = json!({
        "current-page": 1, "prev-page": null, "next-page": 2, "total-pages": 2, "total-count": 3,
    });
    assert_eq!(page["meta"]["pagination"], pagination);
    let last = server.get("/agent-pools?page[size]=2&page[number]=2").await;
    assert_eq!(last["data"][0]["attributes"]["name"], "c");
    let beyond = server.get("/agent-pools?page[number]=9").await;
    assert_eq!(beyond["data"], json!([]));
    let named = server.get("/agent-pools?filter[name]=b").await;
    assert_eq!(named["meta"]["pagination"]["total-count"], 1);
    let (status, _) = server.call(Method::GET, "/agent-pools?page[size]=0", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_pool_in_use_stays_and_is_not_narrowed_away() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let other = id(&server.create("/environments", json!({ "name": "other" }), &[]).await);
    let pool = format!("/agent-pools/{}", site.pool);
    let shown = server.get(&pool).await;
    assert_eq!(shown["data"]["attributes"]["in-use"], true);
    assert_eq!(shown["data"]["attributes"]["is-shared"], true);
    assert_eq!(shown["data"]["attributes"]["queue-depth"], 0);
    assert_eq!(shown["data"]["attributes"]["oldest-wait-seconds"], Value::Null);
    assert_eq!(shown["data"]["attributes"]["free-slots"], 0);

    let (status, document) = server.call(Method::DELETE, &pool, Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(error(&document).1.contains("main"), "{document}");

    let only = |environment: &str| {
        let data = json!([{ "type": "environments", "id": environment }]);
        json!({ "data": { "relationships": { "environments": { "data": data } } } })
    };
    let (status, document) = server.call(Method::PATCH, &pool, only(&other)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error(&document).2, "/data/relationships/environments");
    assert_eq!(server.get(&pool).await["data"]["attributes"]["is-shared"], true, "unchanged");
    let (status, _) = server.call(Method::PATCH, &pool, only(&site.environment)).await;
    assert_eq!(status, StatusCode::OK);

    // Another environment's workspace may not use it now.
    let links = [("environment", other.as_str()), ("agent-pool", site.pool.as_str())];
    let body = resource(json!({ "name": "x" }), &links);
    let (status, document) = server.call(Method::POST, "/workspaces", body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error(&document).2, "/data/relationships/agent-pool");

    let detach = json!({ "data": { "relationships": { "agent-pool": { "data": null } } } });
    let workspace = format!("/workspaces/{}", site.workspace);
    assert_eq!(server.call(Method::PATCH, &workspace, detach).await.0, StatusCode::OK);
    let (status, _) = server.call(Method::DELETE, &pool, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_account_has_one_default_pool() {
    let server = Server::start().await;
    let default = json!({ "name": "a", "default": true });
    let first = id(&server.create("/agent-pools", default, &[]).await);
    server.create("/agent-pools", json!({ "name": "b", "default": true }), &[]).await;
    let first = server.get(&format!("/agent-pools/{first}")).await;
    assert_eq!(first["data"]["attributes"]["default"], false);
}

#[tokio::test]
async fn a_token_is_shown_once() {
    let server = Server::start().await;
    let pool = id(&server.create("/agent-pools", json!({ "name": "pool" }), &[]).await);
    let tokens = format!("/agent-pools/{pool}/access-tokens");
    let attributes = json!({ "description": "for ci", "expires-in": 60 });
    let token = server.create(&tokens, attributes, &[]).await;
    assert!(token["attributes"]["token"].as_str().unwrap().len() > 64);
    assert!(token["attributes"]["expires-at"].is_string());
    let again = server.get(&format!("/access-tokens/{}", id(&token))).await;
    assert_eq!(again["data"]["attributes"].get("token"), None);
    assert_eq!(again["data"]["attributes"]["description"], "for ci");
    assert_eq!(server.get(&tokens).await["data"][0]["attributes"].get("token"), None);
}

#[tokio::test]
async fn sensitive_values_never_come_back() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let attributes =
        json!({ "key": "pw", "value": "s3cret", "category": "terraform", "sensitive": true });
    let variable = server.create("/vars", attributes, &[("workspace", &site.workspace)]).await;
    assert_eq!(variable["attributes"]["value"], Value::Null);
    let path = format!("/vars/{}", id(&variable));
    assert_eq!(server.get(&path).await["data"]["attributes"]["value"], Value::Null);
    let patch = resource(json!({ "sensitive": false }), &[]);
    let (status, _) = server.call(Method::PATCH, &path, patch).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let patch = resource(json!({ "sensitive": false, "value": "new" }), &[]);
    let (_, document) = server.call(Method::PATCH, &path, patch).await;
    assert_eq!(document["data"]["attributes"]["value"], "new");
    let (status, _) = server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_run_needs_a_configuration_and_a_pool() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let environment = [("environment", site.environment.as_str())];
    let workspace = id(&server.create("/workspaces", json!({ "name": "x" }), &environment).await);
    let run = resource(json!({}), &[("workspace", &workspace)]);
    let (status, document) = server.call(Method::POST, "/runs", run.clone()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let detail = "No configuration versions available to create the run from. Upload at least one \
                  or link the workspace to a VCS provider.";
    let pointer = "/data/relationships/configuration-version";
    assert_eq!(error(&document), ("Invalid Relationship", detail, pointer));

    server.upload_configuration(&workspace).await;
    let (status, document) = server.call(Method::POST, "/runs", run.clone()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&document).1.contains("no agent pool"), "{document}");

    let default = json!({ "name": "default", "default": true });
    server.create("/agent-pools", default, &[]).await;
    assert_eq!(server.call(Method::POST, "/runs", run).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn only_an_archive_can_be_uploaded_and_only_once() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let links = [("workspace", site.workspace.as_str())];
    let version = server.create("/configuration-versions", json!({}), &links).await;
    let link = version["links"]["upload"].as_str().unwrap();
    let put =
        async |link: &str| server.http.put(link).body("no archive").send().await.unwrap().status();
    assert_eq!(put(link).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(put(&format!("{link}0")).await, StatusCode::NOT_FOUND, "a wrong signature");
    let path = format!("/configuration-versions/{}", id(&version));
    assert_eq!(server.get(&path).await["data"]["attributes"]["status"], "pending");
    let run = resource(json!({}), &[links[0], ("configuration-version", &id(&version))]);
    assert_eq!(server.call(Method::POST, "/runs", run).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let uploaded = server.upload_configuration(&site.workspace).await;
    assert_eq!(put(&uploaded).await, StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_upload_can_be_repeated_and_not_replaced() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let links = [("workspace", site.workspace.as_str())];
    let put = async |link: &str, archive: Vec<u8>| {
        let answer = server.http.put(link).body(archive).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let version = server.create("/configuration-versions", json!({}), &links).await;
    let link = version["links"]["upload"].as_str().unwrap();
    for _ in 0..3 {
        assert_eq!(put(link, archive("main.tf")).await.0, StatusCode::OK);
    }
    let (status, text) = put(link, archive("other.tf")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let expected = format!("The configuration version {} has another archive", id(&version));
    assert!(text.contains(&expected), "{text}");
    assert_eq!(put(&format!("{link}0"), archive("main.tf")).await.0, StatusCode::NOT_FOUND);

    // At once: one of them is kept, and that one can be repeated.
    let version = server.create("/configuration-versions", json!({}), &links).await;
    let link = version["links"]["upload"].as_str().unwrap();
    let (one, other) = tokio::join!(put(link, archive("a.tf")), put(link, archive("b.tf")));
    let mut both = [one.0, other.0];
    both.sort();
    assert_eq!(both, [StatusCode::OK, StatusCode::CONFLICT]);
    let kept = if one.0 == StatusCode::OK { "a.tf" } else { "b.tf" };
    assert_eq!(put(link, archive(kept)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_upload_is_refused_with_the_name_and_the_limit() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let links = [("workspace", site.workspace.as_str())];
    let version = server.create("/configuration-versions", json!({}), &links).await;
    let link = version["links"]["upload"].as_str().unwrap();
    let put = async |archive: Vec<u8>| {
        let answer = server.http.put(link).body(archive).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Fifo);
    header.set_size(0);
    tar.append_data(&mut header, "run/pipe", std::io::empty()).unwrap();
    let (status, text) = put(tar.into_inner().unwrap().finish().unwrap()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("cannot take `run/pipe`: it is a named pipe"), "{text}");
    let (status, text) = put(vec![0x1f; configuration::MAX_PACKED + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(text.contains("larger than the 104857600 bytes (100 MiB)"), "{text}");
}

/// An archive with an empty file.
fn archive(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, std::io::empty()).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn a_workspace_goes_with_everything_unless_it_is_protected() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let path = format!("/workspaces/{}", site.workspace);
    let run = id(&server.run(&site).await);
    assert_eq!(
        server.call(Method::DELETE, &path, Value::Null).await.0,
        StatusCode::CONFLICT,
        "a run is under way"
    );
    assert_eq!(server.action(&run, "cancel").await, StatusCode::ACCEPTED);

    use base64::Engine as _;
    let state = crate::harness::state(1, json!({}));
    let state = json!({ "state": base64::prelude::BASE64_STANDARD.encode(state), "serial": 1 });
    server.create("/state-versions", state, &[("workspace", &site.workspace)]).await;
    assert_eq!(
        server.call(Method::DELETE, &path, Value::Null).await.0,
        StatusCode::CONFLICT,
        "it has resources"
    );
    let unprotect = resource(json!({ "deletion-protection-enabled": false }), &[]);
    assert_eq!(server.call(Method::PATCH, &path, unprotect).await.0, StatusCode::OK);
    assert!(server.data.join("objects").join(&site.workspace).exists());
    let (status, _) = server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = server.call(Method::GET, &format!("/runs/{run}"), Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let environment = format!("/environments/{}", site.environment);
    let (status, _) = server.call(Method::DELETE, &environment, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}
