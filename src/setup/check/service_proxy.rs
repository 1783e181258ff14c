//! The proxy that agent and engine are given.

use anyhow::Result;

use super::{Outcome, Subject};
use crate::context::RECORDS;
use crate::proxy::of_units;
use config::layout::{ENGINE_PROXY_DROP_IN, PROXY_DROP_IN, PROXY_SECRETS};
use config::proxy::{masked_value, secrets_of};
use host::changes::Changes;

pub(super) fn proxy(subject: &Subject) -> Outcome {
    match look(subject) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::unknown(format!("{error:#}")),
    }
}

fn look(subject: &Subject) -> Result<Outcome> {
    let machine = &subject.machine;
    let set = of_units(machine)?;
    let Some((_, url)) = set.iter().find(|(name, _)| !name.eq_ignore_ascii_case("NO_PROXY")) else {
        return Ok(Outcome::Skipped("the services have no proxy".to_owned()));
    };
    let url = masked_value(url);
    if Changes::begin(machine, &RECORDS, true)?.is_ours(PROXY_DROP_IN)? {
        return Ok(Outcome::Passed(format!("{url}, set by `scalr-agent-setup proxy`")));
    }
    if !machine.path(PROXY_DROP_IN).exists() {
        return Ok(Outcome::Passed(format!("{url}, set by a drop-in of another name")));
    }
    if subject.is_bundled() && !machine.path(ENGINE_PROXY_DROP_IN).exists() {
        return Ok(Outcome::Problem(
            format!(
                "{PROXY_DROP_IN} was written by hand and is used as it is ({url}), but scalr-docker, \
                 which fetches images, is not given it"
            ),
            vec![give_engine_the_same()],
        ));
    }
    let secret = set.iter().any(|(_, value)| !secrets_of(value).is_empty());
    let in_file = machine.path(PROXY_SECRETS).exists();
    if secret && !in_file {
        return Ok(Outcome::warning(format!(
            "{PROXY_DROP_IN} was written by hand and is used as it is ({url}), but any user of this \
             host reads its password with `systemctl show`; `scalr-agent-setup proxy --http - \
             --force` takes the URL from standard input and keeps it where only root reads it"
        )));
    }
    Ok(Outcome::Passed(format!("{url}, written by hand in {PROXY_DROP_IN} and used as it is")))
}

fn give_engine_the_same() -> String {
    let folder = ENGINE_PROXY_DROP_IN.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!(
        "mkdir -p {folder} && ln -sfn {PROXY_DROP_IN} {ENGINE_PROXY_DROP_IN} && systemctl daemon-reload && \
         systemctl try-restart scalr-docker"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use host::machine::Machine;

    fn looked(url: Option<&str>, linked: bool) -> Outcome {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let file = |path: &str| {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            file
        };
        if let Some(url) = url {
            let text = format!("[Service]\nEnvironment=\"HTTPS_PROXY={url}\"\n");
            fs::write(file(PROXY_DROP_IN), text).unwrap();
        }
        if linked {
            symlink(PROXY_DROP_IN, file(ENGINE_PROXY_DROP_IN)).unwrap();
        }
        proxy(&Subject::of(&machine).unwrap())
    }

    #[test]
    fn a_hand_written_proxy_is_used_and_reported() {
        let Outcome::Passed(text) = looked(Some("http://proxy:3128"), true) else { panic!() };
        assert!(text.contains("http://proxy:3128, written by hand"), "{text}");
        assert!(matches!(looked(None, false), Outcome::Skipped(_)));
    }

    #[test]
    fn the_engine_needs_it_too() {
        let Outcome::Problem(_, fix) = looked(Some("http://proxy:3128"), false) else { panic!() };
        assert!(fix[0].starts_with("mkdir -p /etc/systemd/system/scalr-docker.service.d && ln"));
    }

    #[test]
    fn its_password_can_be_read_but_not_here() {
        let Outcome::Warning(text, _) = looked(Some("http://u:hunter2@proxy:3128"), true) else {
            panic!()
        };
        assert!(text.contains("u:***@proxy") && !text.contains("hunter2"), "{text}");
    }
}
