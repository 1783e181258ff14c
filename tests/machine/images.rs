//! Images from a registry that wants a password and whose certificate is a
//! private authority's.

mod registry;

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, configuration, kit};
use crate::pool::Pool;
use registry::{HOST, PASSWORD, Registry, USER};

/// Where the agent looks for passwords.
const CREDENTIALS: &str = "/etc/scalr-agent/registries.json";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_pulls_its_image_with_a_password_or_says_what_is_wrong() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    fleet.install("");
    let registry = Registry::start(&fleet);
    push_images(&fleet, &registry);
    credentials(&fleet, PASSWORD);
    fleet.shell(&format!("scalr-agent configure --registry-auth={CREDENTIALS}"));
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");

    distrust(&fleet);
    let image = format!("{HOST}/team/run:1");
    fails(
        &pool,
        &image,
        &[
            &format!("the engine does not trust {HOST}"),
            &format!("/etc/docker/certs.d/{HOST}/ca.crt"),
        ],
    );
    // As the message says; nothing is restarted.
    trust(&fleet, &registry);
    credentials(&fleet, "wrong");
    fails(
        &pool,
        &image,
        &["requires other credentials", "scalr-agent configure --registry-auth FILE"],
    );
    credentials(&fleet, PASSWORD);
    fails(&pool, &format!("{HOST}/team/run:9"), &["there is no image of that name and tag"]);
    fails(&pool, &format!("{HOST}/team/run:arm"), &["it is not made for linux/amd64"]);
    fails(&pool, &format!("{HOST}/team/empty:1"), &["whose image has to have /bin/sh"]);

    // So slow that it takes longer than what lies between two lines of progress.
    registry.send_megabits(20);
    pool.patch_workspace(json!({"image": image}));
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    let log = pool.log(&run, "plan");
    let place = |what: &dyn Fn(&str) -> bool| log.lines().position(what);
    let pulling = place(&|line| line == format!("Pulling image {image}"));
    let progress = place(&is_progress);
    let pulled = place(&|line| line.starts_with(&format!("Pulled image {image} in ")));
    assert!(pulling.is_some() && pulling < progress && progress < pulled, "{log}");
    assert!(log.contains("2 to add"), "{log}");

    let said = fleet.shell("journalctl --no-pager --unit=scalr-agent --unit=scalr-docker") + &log;
    assert!(said.contains(&image) && !said.contains(PASSWORD), "the password shows");
}

/// Puts what the runs are to pull into the registry, and takes it all off the
/// engine again.
fn push_images(fleet: &Fleet, registry: &Registry<'_>) {
    trust(fleet, registry);
    let login = format!("{DOCKER} login --username {USER} --password-stdin {HOST}");
    fleet.world.feed(&fleet.machine, &login, PASSWORD.as_bytes());
    let image = std::fs::read(kit().join("run-image.tar")).expect("the kit has an image");
    let import = format!("{DOCKER} import - {HOST}/team/run:1");
    fleet.world.feed(&fleet.machine, &import, &image);
    fleet.shell(&format!("cd /etc && tar -c hostname | {DOCKER} import - {HOST}/team/empty:1"));
    let pushed = fleet.shell(&format!(
        "{DOCKER} push --quiet {HOST}/team/empty:1 && {DOCKER} push {HOST}/team/run:1"
    ));
    // "1: digest: sha256:… size: 527"
    let words: Vec<_> = pushed.split_whitespace().rev().take(3).collect();
    let [size, _, digest] = words[..] else { panic!("no digest in {pushed}") };
    registry.list_for_arm("team/run", digest, size.parse().expect("a size"));
    fleet.shell(&format!("{DOCKER} image prune --all --force && {DOCKER} logout {HOST}"));
    assert_eq!(fleet.shell(&format!("{DOCKER} images --all --quiet")), "");
}

/// As docs/images.md says it.
fn trust(fleet: &Fleet, registry: &Registry<'_>) {
    let file = format!("/etc/docker/certs.d/{HOST}/ca.crt");
    fleet.put(&file, "0644", registry.authority.as_bytes());
}

fn distrust(fleet: &Fleet) {
    fleet.shell(&format!("rm -r /etc/docker/certs.d/{HOST}"));
}

/// As docs/images.md says it.
fn credentials(fleet: &Fleet, password: &str) {
    let auths = json!({"auths": {HOST: {"username": USER, "password": password}}});
    let line = format!(
        "umask 077 && cat >config.json && install -m 0640 -g scalr-agent config.json {CREDENTIALS}"
    );
    fleet.world.feed(&fleet.machine, &line, auths.to_string().as_bytes());
}

/// A run of that image fails, and its log says all this.
fn fails(pool: &Pool<'_>, image: &str, says: &[&str]) {
    pool.patch_workspace(json!({"image": image}));
    let run = pool.start_run(&configuration());
    pool.wait_for_ended(&run, "errored");
    let log = pool.log(&run, "plan");
    for text in says {
        assert!(log.contains(text), "no {text:?} in the log of {image}: {log}");
    }
}

/// `  12 of 34 MB`
fn is_progress(line: &str) -> bool {
    line.starts_with("  ") && line.ends_with(" MB") && line.contains(" of ")
}
