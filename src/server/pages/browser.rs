//! Somebody who is signed in, for tests: the pages are called directly.

use axum::http::header::{COOKIE, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode};
use url::form_urlencoded::Serializer;

use super::session;
use crate::in_process::InProcess;

pub(super) struct Browser<'a> {
    server: &'a InProcess,
    cookie: String,
    form_token: String,
}

impl<'a> Browser<'a> {
    pub(super) async fn new(server: &'a InProcess) -> Self {
        Self::begin(server, "admin", HeaderMap::new()).await
    }

    async fn begin(server: &'a InProcess, name: &str, headers: HeaderMap) -> Self {
        let app = &server.app;
        let mut tx = app.scheduler.store.write().await.unwrap();
        let cookie = session::begin(app, &mut tx, None, name.to_owned(), &headers).await.unwrap();
        tx.commit().await.unwrap();
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let value = cookie.split_once('=').unwrap().1;
        Self { form_token: session::form_token(value), cookie, server }
    }

    /// The same browser after `name` has signed in with it.
    pub(super) async fn sign_in_again(&self, name: &str) -> Self {
        let headers = HeaderMap::from_iter([(COOKIE, self.cookie.parse().unwrap())]);
        Self::begin(self.server, name, headers).await
    }

    pub(super) fn form_token(&self) -> &str {
        &self.form_token
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String) {
        self.send(Method::GET, path, String::new()).await
    }

    /// A page that is there.
    pub(super) async fn page(&self, path: &str) -> String {
        let (status, html) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {html}");
        html
    }

    /// Sends a form with its token.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> (StatusCode, String) {
        self.send(Method::POST, path, self.form(fields)).await
    }

    /// Sends a form with its token; where the answer leads.
    pub(super) async fn post_for_location(
        &self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (StatusCode, Option<String>) {
        let headers = [("cookie", self.cookie.as_str())];
        let answer = self.server.answer(Method::POST, path, "", &headers, self.form(fields)).await;
        let location = answer.headers().get(LOCATION);
        (answer.status(), location.map(|location| location.to_str().unwrap().to_owned()))
    }

    fn form(&self, fields: &[(&str, &str)]) -> String {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(fields).append_pair("form-token", &self.form_token).finish()
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> (StatusCode, String) {
        self.send_as(method, path, ("accept", "text/html"), body).await
    }

    /// Sends something with a header.
    pub(super) async fn send_as(
        &self,
        method: Method,
        path: &str,
        header: (&str, &str),
        body: String,
    ) -> (StatusCode, String) {
        let headers = [("cookie", self.cookie.as_str()), header];
        let (status, body) = self.server.call(method, path, "", &headers, body).await;
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}
