//! `terraform login` and `logout`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Response, StatusCode};
use serde_json::Value;

use super::cli::{Cli, old_terraform, said, server};
use crate::harness::{Server, id};
use tests::programs;

/// A browser that is signed in: it keeps its cookies and follows no redirect by itself.
struct Browser {
    http: Client,
    cookies: Vec<(String, String)>,
}

impl Browser {
    async fn signed_in(server: &Server) -> Self {
        let ca = fs::read(server.data.join("tls/ca.pem")).unwrap();
        let http = Client::builder()
            .tls_certs_only([Certificate::from_pem(&ca).unwrap()])
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let mut browser = Self { http, cookies: Vec::new() };
        let url = format!("{}/sign-in", server.url);
        let page = browser.get(&url).await.text().await.unwrap();
        let mut fields = form(&page);
        fields.push(("token".to_owned(), server.admin.clone()));
        assert_eq!(browser.post(&url, &fields).await.status(), StatusCode::SEE_OTHER);
        browser
    }

    async fn get(&mut self, url: &str) -> Response {
        let request = self.http.get(url).header(COOKIE, self.cookies());
        self.keep_cookies(request.send().await.unwrap())
    }

    async fn post(&mut self, url: &str, fields: &[(String, String)]) -> Response {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        let request = self
            .http
            .post(url)
            .header(COOKIE, self.cookies())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.finish());
        self.keep_cookies(request.send().await.unwrap())
    }

    fn cookies(&self) -> String {
        let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&mut self, answer: Response) -> Response {
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        answer
    }
}

/// The inputs of a page's form that have values, as a browser would send them.
fn form(page: &str) -> Vec<(String, String)> {
    let page = &page[page.find("<main").unwrap_or(0)..];
    let attribute = |input: &str, name: &str| {
        let rest = input.split_once(&format!(" {name}=\""))?.1;
        Some(rest.split_once('"')?.0.replace("&amp;", "&").replace("&#x2F;", "/"))
    };
    let inputs = page.split("<input").skip(1).map(|rest| rest.split('>').next().unwrap());
    inputs
        .filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// An `xdg-open` in `folder` that writes down which page it should open; where.
fn fake_desktop(folder: &Path) -> PathBuf {
    let program = folder.join("xdg-open");
    let script = "#!/bin/sh\nprintf %s \"$1\" >\"$0.part\"\nmv \"$0.part\" \"$0.url\"\n";
    programs::write(&program, script);
    folder.join("xdg-open.url")
}

/// Waits until Terraform has opened a page.
async fn opened_page(page: &Path) -> String {
    let opened = async {
        loop {
            if let Ok(url) = fs::read_to_string(page) {
                return url;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), opened).await.expect("no page was opened")
}

async fn log_in(server: &Server, cli: Cli) {
    let home = cli.home.path();
    let page = fake_desktop(home);
    let path = format!("{}:{}", home.display(), env::var("PATH").unwrap());
    // Terraform saves tokens in its folder, and reads them there if no file is named.
    let command = |arguments: &str| {
        let mut command = cli.in_terminal(arguments);
        command.env_remove("TF_CLI_CONFIG_FILE").env("PATH", &path);
        command
    };
    fs::write(home.join("answer"), "yes\n").unwrap();
    // Terraform makes the folder only where it may look for newer versions of itself.
    let _ = fs::create_dir(home.join(".terraform.d"));
    let mut login = command(&format!("login {}", cli.host));
    login.stdin(fs::File::open(home.join("answer")).unwrap());
    let login = tokio::spawn(said(login));

    let url = opened_page(&page).await;
    let mut browser = Browser::signed_in(server).await;
    let consent = browser.get(&url).await;
    assert_eq!(consent.status(), StatusCode::OK);
    let consent = consent.text().await.unwrap();
    assert!(consent.contains("terraform login") && consent.contains(&server.url), "{consent}");
    let mut fields = form(&consent);
    fields.push(("decision".to_owned(), "allow".to_owned()));
    let allowed = browser.post(&format!("{}/oauth/authorize", server.url), &fields).await;
    assert_eq!(allowed.status(), StatusCode::SEE_OTHER);
    let program = allowed.headers()[LOCATION].to_str().unwrap().to_owned();
    // Terraform may end before it has answered: it has what it waited for.
    let _ = browser.http.get(&program).send().await;
    let login = login.await.unwrap();
    assert_eq!(login.code, Some(0), "{login:?}");

    let listed = server.get("/access-tokens").await;
    let token = listed["data"].as_array().unwrap().last().unwrap();
    assert_eq!(token["attributes"]["name"], "terraform login on 127.0.0.1");
    cli.remote("name = \"login\"");
    let init = said(command("init -input=false")).await;
    assert_eq!(init.code, Some(0), "{init:?}");
    let logout = said(command(&format!("logout {}", cli.host))).await;
    assert_eq!(logout.code, Some(0), "{logout:?}");
    let plan = said(command("plan -input=false")).await;
    assert_eq!(plan.code, Some(1), "{plan:?}");
    assert!(plan.text.contains("terraform login"), "{plan:?}");

    let path = format!("/access-tokens/{}", id(token));
    let (status, _) = server.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn terraform_login_gets_a_token_that_is_listed_and_logout_forgets_it() {
    let server = server().await;
    log_in(&server, Cli::without_token(&server)).await;
    if let Some(old) = old_terraform() {
        log_in(&server, Cli::without_token(&server).with_program(old)).await;
    }
}
