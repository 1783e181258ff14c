//! What a run is given, and that nobody else sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, configuration};
use crate::machine::wait_for;
use crate::pool::{Pool, Run};
use crate::watch::Watch;

/// What the unit is given besides what it has: an agent's own, and a proxy.
const DROP_IN: &str = "\
[Service]
Environment=FOO=bar XDG_RUNTIME_DIR=/run/foo SCALR_AGENT_IMAGE_MAX_AGE=7
Environment=HTTP_PROXY=http://proxy.test:8888 NO_PROXY=pools.test
";

/// Shows what it has, and waits to be let on.
const HOOK: &str = "\
echo the names begin
env
echo the names end
echo \"as base64: $(printf 'user:%s' \"$SCALR_TOKEN\" | base64 | tr -d '\\n')\"
echo holding
until [ -e /tmp/go ]; do sleep 0.2; done
";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_has_what_is_documented_and_nobody_else_sees_it() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("--concurrency 2");
    let drop_in = "/etc/systemd/system/scalr-agent.service.d/own.conf";
    fleet.put(drop_in, "0644", DROP_IN.as_bytes());
    fleet.shell("systemctl daemon-reload && systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    let mut secrets = vec![pool.token.clone(), "open sesame".into(), "hush hush".into()];
    // Whatever a session's token is, it begins so.
    secrets.push("sess-".into());
    write(&fleet, "/root/secrets", &secrets);
    let watch = Watch::start(&fleet, "/root/secrets");

    pool.variable("greeting", "terraform", true, "hush hush");
    pool.hooks(json!({"pre-plan": HOOK}));
    let run = hold(&pool);
    let tokens = tokens(&fleet);
    assert_eq!(tokens.len(), 2, "the agent's and the run's: {tokens:?}");
    assert_eq!(tokens.iter().filter(|token| token.starts_with("run.")).count(), 1);
    let mut of_first = tokens.clone();
    of_first.extend(["open sesame".into(), "hush hush".into()]);
    write(&fleet, "/root/of-first", &of_first);

    let other = pool.with_workspace("beside", json!({"auto-apply": false}));
    other.variable("greeting", "terraform", true, "mum's the word");
    other.hooks(json!({"pre-plan": HOOK}));
    let other_run = hold(&other);
    secrets.extend(self::tokens(&fleet));
    secrets.push("mum's the word".into());
    write(&fleet, "/root/secrets", &secrets);

    let agent = fleet.shell("systemctl show --property=MainPID scalr-agent | cut -d= -f2");
    fleet.shell(&format!(
        "{{ {DOCKER} inspect $({DOCKER} ps --all --quiet); systemctl show scalr-agent; \
         cat /proc/{agent}/environ /proc/{agent}/cmdline; }} >/root/shown"
    ));
    let shown = "grep --text --count --fixed-strings --file=/root/secrets /root/shown";
    assert_eq!(fleet.shell(&format!("{shown} || :")), "0", "a secret shows");
    fleet.shell("cat /root/pool.token >>/root/shown");
    assert_eq!(fleet.shell(shown), "1", "this search finds what there is");

    assert_eq!(in_container(&fleet, &other_run), "", "what the other run has of the first");
    let own = in_container(&fleet, &run);
    for place in ["/root/scalr/run/environment", "auto.tfvars.json", "/environ"] {
        assert!(own.contains(place), "this search finds what there is: {own}");
    }

    let_on(&fleet, &run);
    let_on(&fleet, &other_run);
    pool.wait_for_status(&run, "planned");
    other.wait_for_status(&other_run, "planned");
    assert_eq!(watch.end(), "", "a secret was on a command line");
    let log = pool.log(&run, "plan");
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "{secret} in {log}");
    }
    for masked in ["\nSCALR_TOKEN=***\n", "\nSECRET_WORD=***\n", "\nas base64: dXNlcjp***"] {
        assert!(log.contains(masked), "{masked} not in {log}");
    }
    check_names(&log);
}

/// Starts a run and waits until its hook, which says that it is holding, does so.
pub(crate) fn hold(pool: &Pool<'_>) -> Run {
    let run = pool.start_run(&configuration());
    wait_for("the run to hold", Duration::from_secs(60), || {
        pool.log(&run, "plan").contains("holding\n").then_some(())
    });
    run
}

/// Lets a held run go on.
pub(crate) fn let_on(fleet: &Fleet, run: &Run) {
    fleet.shell(&format!("{DOCKER} exec {} touch /tmp/go", container(fleet, run)));
}

/// Compares the names of a run's variables with the page that lists them.
fn check_names(log: &str) {
    let names =
        log.split("the names begin\n").nth(1).and_then(|rest| rest.split("the names end").next());
    let given: BTreeSet<&str> = names
        .expect("they are in the log")
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    let page = include_str!("../../docs/environment.md");
    let table = page.split("\n## ").next().expect("it begins with the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let documented: BTreeSet<&str> =
        rows.flat_map(|row| row.split(['`', ' '])).filter(|name| !name.is_empty()).collect();

    let is_documented = |name: &str| {
        documented.contains(name)
            || documented.contains(&*name.to_uppercase())
            || name == "SECRET_WORD"
    };
    let others: Vec<_> = given.iter().filter(|name| !is_documented(name)).collect();
    assert!(others.is_empty(), "not documented: {others:?}");
    // Those that there are sometimes: no variable has this server's port in it,
    // the agent keeps no providers, the proxy is one for HTTP, and the shell does
    // what it likes.
    let sometimes = [
        "TF_CLI_CONFIG_FILE",
        "TF_TOKEN_…",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    let missing: Vec<_> = documented
        .iter()
        .filter(|name| !given.contains(*name) && !sometimes.contains(name))
        .collect();
    assert!(missing.is_empty(), "documented and not there: {missing:?}");
    assert!(given.contains("http_proxy"), "in lower case, too: {given:?}");
}

/// The tokens of the running tasks.
fn tokens(fleet: &Fleet) -> Vec<String> {
    let pattern = "(run[.])?task-[0-9a-f]+[.][0-9]+[.][0-9a-f]{64}";
    let line = format!("grep -Eoh '{pattern}' /var/lib/scalr-agent/tasks/*/journal");
    fleet.shell(&line).lines().map(str::to_owned).collect()
}

/// Writes lines into a file that may be in use.
fn write(fleet: &Fleet, file: &str, lines: &[String]) {
    let line = format!("umask 077 && cat >{file}.new && mv {file}.new {file}");
    fleet.world.feed(&fleet.machine, &line, (lines.join("\n") + "\n").as_bytes());
}

/// The id of a run's container.
pub(crate) fn container(fleet: &Fleet, run: &Run) -> String {
    fleet.container_of(DOCKER, run)
}

/// Where in a run's container something of the first run is: in its files, or in
/// the environment and the command line of a process.
fn in_container(fleet: &Fleet, run: &Run) -> String {
    let container = container(fleet, run);
    fleet.shell(&format!(
        "processes=$({DOCKER} top {container} -o pid | tail -n +2); \
         for process in $processes; do \
         echo /proc/$process/environ; echo /proc/$process/cmdline; done | \
         xargs grep --text --files-with-matches --fixed-strings --file=/root/of-first; \
         set -- $processes; \
         grep --recursive --text --files-with-matches --fixed-strings --file=/root/of-first \
         --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev /proc/$1/root/; :"
    ))
}
