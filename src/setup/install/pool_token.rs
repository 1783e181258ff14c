//! Whether the server accepts the pool's token, before anything is downloaded.

use anyhow::Result;
use url::Url;

use crate::check::Subject;
use cli::Failure;
use config::Settings;
use host::curl::Answer;

/// Asks the server. One that cannot be reached is the check `server`'s to report, and a
/// server without this call refuses the agent's registration later.
///
/// # Errors
/// The server refuses the token (7).
pub(super) fn check(subject: &Subject, settings: &Settings) -> Result<()> {
    let (Some(url), Some(token)) = (&settings.url, &settings.token) else { return Ok(()) };
    if !subject.machine.is_this_one() {
        return Ok(());
    }
    match subject.answer_to_token(url, token) {
        Ok(answer) => judge(url, &answer),
        Err(_) => Ok(()),
    }
}

fn judge(url: &Url, answer: &Answer) -> Result<()> {
    // 422: it is not of the form of a token.
    if answer.code != 0 || ![401, 422].contains(&answer.status) {
        return Ok(());
    }
    Err(Failure::NotPermitted.because(format!(
        "cannot install an agent for {url}: the server refuses the pool's token\n\
         It is mistyped, expired or deleted, or not the token of an agent pool. Create one for \
         the pool, and run this again with --token-file FILE."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_server_refuses_a_token() {
        let url = "https://pools.example.com".parse().unwrap();
        let judge = |code, status| {
            let said = String::new();
            judge(&url, &Answer { status, proxy_status: 0, code, said, date: None })
        };
        for refused in [401, 422] {
            let error = judge(0, refused).unwrap_err();
            assert_eq!(Failure::of(&error), Failure::NotPermitted);
        }
        for (code, status) in [(0, 204), (0, 404), (0, 502), (0, 407), (56, 401), (7, 0)] {
            judge(code, status).unwrap();
        }
    }
}
