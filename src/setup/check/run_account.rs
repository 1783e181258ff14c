//! The account that runs have in their containers.

use super::{Outcome, Subject};
use crate::status::AGENT_PROGRAM;
use crate::{settings, units};
use cli::Failure;
use cli::untrusted_file;
use config::layout::{ENGINE_GROUP, RUN_USER};

pub(super) fn run_account(subject: &Subject) -> Outcome {
    let machine = &subject.machine;
    if subject.before_install || !machine.path(AGENT_PROGRAM).exists() {
        return Outcome::Skipped("scalr-agent is not installed yet".to_owned());
    }
    let settings = match settings::of_service(machine) {
        Ok(settings) => settings,
        Err(error) if Failure::of(&error) == Failure::NotPermitted => {
            return Outcome::Unknown("only root may read the settings".to_owned());
        }
        Err(error) => return Outcome::problem(format!("{error:#}")),
    };
    if let Some(user) = settings.user {
        return Outcome::Skipped(format!("runs have the user {user}, by the setting `user`"));
    }
    let engines_group = if subject.is_bundled() {
        Some(ENGINE_GROUP.to_owned())
    } else {
        // The check of the engine reports a socket that cannot be used.
        units::group_of(machine, &subject.engine).unwrap_or_default()
    };
    let read = |file: &str| untrusted_file::read_text(machine.path(file));
    match (read("/etc/passwd"), read("/etc/group")) {
        (Ok(users), Ok(groups)) => judge(&users, &groups, engines_group.as_deref()),
        (Err(error), _) => Outcome::Unknown(format!("cannot read /etc/passwd: {error}")),
        (_, Err(error)) => Outcome::Unknown(format!("cannot read /etc/group: {error}")),
    }
}

fn judge(users: &str, groups: &str, engines_group: Option<&str>) -> Outcome {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let users: Vec<Vec<String>> = users.lines().map(fields).collect();
    let named = |name: &str, list: &[Vec<String>]| list.iter().find(|of| of[0] == name).cloned();
    let Some(account) = named(RUN_USER, &users) else {
        return Outcome::Problem(
            format!("the user {RUN_USER} is missing, so runs have the agent's own"),
            vec![format!(
                "useradd --system --no-create-home --home-dir /nonexistent --shell \
                 /usr/sbin/nologin {RUN_USER}"
            )],
        );
    };
    let (uid, gid) = (account.get(2), account.get(3));
    let shares = |of: &&Vec<String>| of[0] != RUN_USER && of.get(2) == uid;
    if let Some(other) = users.iter().find(shares) {
        return Outcome::problem(format!(
            "the users {RUN_USER} and {} have the same number, so runs may do what {} may; give \
             {RUN_USER} another one with `usermod --uid`",
            other[0], other[0]
        ));
    }
    let groups: Vec<Vec<String>> = groups.lines().map(fields).collect();
    let Some(group) = engines_group.and_then(|name| named(name, &groups)) else {
        return Outcome::Passed(format!("runs have the user {RUN_USER}"));
    };
    let name = &group[0];
    if group.get(2) == gid {
        return Outcome::problem(format!(
            "{RUN_USER} has the group {name}, whose members may use the engine as root; give it \
             one of its own with `usermod --gid`"
        ));
    }
    if group.get(3).is_some_and(|members| members.split(',').any(|member| member == RUN_USER)) {
        return Outcome::Problem(
            format!("{RUN_USER} is in the group {name}, whose members may use the engine as root"),
            vec![format!("gpasswd --delete {RUN_USER} {name}")],
        );
    }
    Outcome::Passed(format!("runs have the user {RUN_USER}, which is not in the group {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "root:x:0:0:root:/root:/bin/sh\n";

    fn judged(users: &str, members: &str) -> Outcome {
        let groups = format!("scalr-run:x:990:\nscalr-docker:x:991:{members}\n");
        judge(&format!("{ROOT}{users}"), &groups, Some("scalr-docker"))
    }

    #[test]
    fn runs_have_an_account_that_nothing_else_has() {
        let own = "scalr-run:x:990:990::/nonexistent:/usr/sbin/nologin\n";
        assert!(matches!(judged(own, "scalr-agent"), Outcome::Passed(_)));
        let Outcome::Problem(text, fix) = judged("", "scalr-agent") else { panic!() };
        assert!(text.contains("scalr-run is missing") && fix[0].starts_with("useradd"), "{text}");
        let Outcome::Problem(text, _) = judged(&own.replace("990", "0"), "") else { panic!() };
        assert!(text.contains("scalr-run and root have the same number"), "{text}");
    }

    #[test]
    fn the_account_of_runs_may_not_use_the_engine() {
        let own = "scalr-run:x:990:990::/nonexistent:/usr/sbin/nologin\n";
        let Outcome::Problem(_, fix) = judged(own, "scalr-agent,scalr-run") else { panic!() };
        assert_eq!(fix, ["gpasswd --delete scalr-run scalr-docker"]);
        let Outcome::Problem(text, _) = judged(&own.replace(":990::", ":991::"), "") else {
            panic!()
        };
        assert!(text.contains("has the group scalr-docker"), "{text}");
    }
}
