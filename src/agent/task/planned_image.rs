//! Tests: an apply uses the image that its plan ran, with a fake engine.

use std::fs;
use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::ends::{Asked, Finishes, choosy, context, engine, fake, job, json, packed};
use super::tests::claimed;
use crate::journal::Container;
use crate::log::spool::Spool;
use protocol::{Finish, Kind, Outcome, RanImage};

const ID: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Of Linux and the layer `sha256:1`, without settings.
const CONTENT: &str = "3d266d9c35bdc703c851c8af778288a6f830fff25a416c33f8ff9c4e323410c2";
const DIGEST: &str = "run@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A plan that has finished in a container with an image, which the engine shows as `image`.
async fn planned(folder: &Path, image: fn() -> Response) -> (Finish, String) {
    let engine = Router::new().fallback(async move |request: Request| {
        let asked = format!("{} {}", request.method(), request.uri());
        match asked {
            asked if asked.ends_with("status") => packed("init 0\nplan 2\n").into_response(),
            asked if asked.ends_with("run%2Fplan") => packed("PLAN").into_response(),
            asked if asked.ends_with("/containers/c1/json") => json(&format!(
                r#"{{"State": {{"Status": "exited", "Running": false, "ExitCode": 0}},
                     "Image": "{ID}", "Config": {{"Image": "run:1"}}}}"#
            )),
            asked if asked.contains("/images/") => image(),
            asked if asked.ends_with("/archive?path=%2Fscalr%2Fwork") => {
                (StatusCode::NOT_FOUND, json(r#"{"message": "no such file"}"#)).into_response()
            }
            asked => self::engine(&asked),
        }
    });
    let context = context(folder, choosy(&Finishes::default(), |_| None), engine).await;
    let mut entry = context.journal.begin(claimed(), 0).unwrap();
    entry.note_container(Container { id: "c1".into(), ..Container::default() }).unwrap();
    let mut job = job(&context, entry);
    let finish = job.until_ended().await.unwrap().expect("it was not given back");
    (finish, fs::read_to_string(job.entry.log()).unwrap())
}

#[tokio::test]
async fn a_finished_plan_reports_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let image = || {
        json(&format!(
            r#"{{"Id": "{ID}", "RepoDigests": ["{DIGEST}"], "Os": "linux",
                 "RootFS": {{"Type": "layers", "Layers": ["sha256:1"]}}}}"#
        ))
    };
    let (finish, log) = planned(folder.path(), image).await;
    assert_eq!((finish.outcome, log.as_str()), (Outcome::Finished, ""), "{finish:?}");
    let (name, id, digest) = ("run:1".to_owned(), ID.to_owned(), Some(DIGEST.to_owned()));
    let content = Some(CONTENT.to_owned());
    assert_eq!(finish.image, Some(RanImage { name, id, digest, content }));
}

#[tokio::test]
async fn the_log_of_a_plan_says_that_its_image_cannot_be_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let image = || {
        let why = json(r#"{"message": "layer does not exist"}"#);
        (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
    };
    let (finish, log) = planned(folder.path(), image).await;
    assert_eq!((finish.outcome, finish.image), (Outcome::Finished, None));
    for what in ["the apply may use another image", "layer does not exist"] {
        assert!(log.contains(what), "{log}");
    }
}

#[tokio::test]
async fn an_apply_uses_the_image_of_its_plan_or_none() {
    /// The image that was planned is here.
    fn here(asked: &str) -> Response {
        match asked {
            asked if asked.ends_with(&format!("/images/{ID}/json")) => {
                json(&format!(r#"{{"Id": "{ID}"}}"#))
            }
            // What its name means by now.
            asked if asked.ends_with("/images/run:1/json") => json(r#"{"Id": "sha256:other"}"#),
            asked => engine(asked),
        }
    }
    /// Its name is that of another image.
    fn elsewhere(asked: &str) -> Response {
        match asked {
            asked if asked.ends_with(&format!("/images/{ID}/json")) => {
                (StatusCode::NOT_FOUND, json(r#"{"message": "no such image"}"#)).into_response()
            }
            asked => here(asked),
        }
    }
    /// An image of its name has the same content.
    fn imported(asked: &str) -> Response {
        match asked {
            asked if asked.ends_with("/images/run:1/json") => json(
                r#"{"Id": "sha256:imported", "Os": "linux",
                    "RootFS": {"Type": "layers", "Layers": ["sha256:1"]}}"#,
            ),
            asked => elsewhere(asked),
        }
    }
    /// Its registry has it.
    fn pulled(asked: &str) -> Response {
        match asked {
            asked if asked.ends_with(&format!("/images/{DIGEST}/json")) => {
                json(r#"{"Id": "sha256:the-same-elsewhere"}"#)
            }
            asked => elsewhere(asked),
        }
    }
    for (answer, image, expected) in [
        (here as fn(&str) -> Response, "run:1", Ok(ID)),
        (here, DIGEST, Ok(ID)),
        (pulled, DIGEST, Ok(DIGEST)),
        (imported, "run:1", Ok("sha256:imported")),
        (elsewhere, "run:1", Err("load that image on this host, or plan again")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = choosy(&Finishes::default(), |_| None);
        let context = context(folder.path(), server, fake(&Asked::default(), answer)).await;
        let mut claimed = claimed();
        claimed.task.kind = Kind::Apply;
        claimed.task.image = Some(image.to_owned());
        claimed.task.image_id = Some(ID.to_owned());
        claimed.task.image_content = Some(CONTENT.to_owned());
        let entry = context.journal.begin(claimed, 0).unwrap();
        let mut spool = Spool::open(&entry.log()).unwrap();
        let found = job(&context, entry).image(&mut spool).await;
        match expected {
            Ok(image) => assert_eq!(found.unwrap(), image),
            Err(why) => {
                let error = found.unwrap_err().to_string();
                assert!(error.contains(why) && error.contains(ID), "{error}");
            }
        }
    }
}
