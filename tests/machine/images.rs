//! Images from a registry that wants a password and whose certificate is a
//! private authority's.

mod registry;

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, configuration, kit};
use crate::pool::{Pool, Run};
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

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_apply_has_the_image_of_its_plan_or_none_whatever_became_of_the_name() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("");
    let registry = Registry::start(&fleet);
    trust(&fleet, &registry);
    credentials(&fleet, PASSWORD);
    fleet.shell(&format!("scalr-agent configure --registry-auth={CREDENTIALS}"));
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    let login = format!("{DOCKER} login --username {USER} --password-stdin {HOST}");
    fleet.world.feed(&fleet.machine, &login, PASSWORD.as_bytes());
    let image = format!("{HOST}/team/run:1");
    // In a workspace of its own, so that there is something to apply.
    let plan = |mark: &str| {
        let pool = pool.with_workspace(mark, json!({"auto-apply": false, "image": image}));
        pool.variable("greeting", "terraform", false, "hello");
        pool.variable("steps", "terraform", false, "1");
        let show = "echo \"the image is $IMAGE_MARK.\"";
        pool.hooks(json!({"pre-plan": show, "pre-apply": show}));
        let run = pool.start_run(&configuration());
        pool.wait_for_status(&run, "planned");
        let log = pool.log(&run, "plan");
        assert!(log.contains(&format!("the image is {mark}.")), "{log}");
        (pool, run)
    };
    let is_applied_with = |(pool, run): &(Pool<'_>, Run), mark: &str| {
        pool.apply(run);
        pool.wait_for_status(run, "applied");
        let log = pool.log(run, "apply");
        assert!(log.contains(&format!("the image is {mark}.")), "{log}");
    };

    // Both are on the engine, and the name is the other one's.
    push(&fleet, &image, "one");
    let planned = plan("one");
    push(&fleet, &image, "two");
    is_applied_with(&planned, "one");

    // The registry has both.
    let planned = plan("two");
    push(&fleet, &image, "three");
    forget_images(&fleet);
    is_applied_with(&planned, "two");

    // Another run has given the engine the name of the other one.
    let planned = plan("three");
    let digest = push(&fleet, &image, "four");
    forget_images(&fleet);
    let of_other = plan("four");
    is_applied_with(&planned, "three");

    // Nobody has it any more.
    forget_images(&fleet);
    registry.delete("team/run", &digest);
    push(&fleet, &image, "five");
    let (pool, run) = &of_other;
    pool.apply(run);
    pool.wait_for_ended(run, "errored");
    let log = pool.log(run, "apply");
    let why = format!("image {HOST}/team/run@{digest} is not on this agent's engine");
    assert!(log.contains(&why) && log.contains("What to do: "), "{log}");
    assert!(!log.contains("the image is"), "{log}");
    is_applied_with(&plan("five"), "five");
}

/// Pushes an image that differs from others by its mark, which the engine has afterwards under
/// that name; gives its digest.
fn push(fleet: &Fleet, image: &str, mark: &str) -> String {
    let archive = std::fs::read(kit().join("run-image.tar")).expect("the kit has an image");
    let import = format!("{DOCKER} import --change 'ENV IMAGE_MARK={mark}' - {image}");
    fleet.world.feed(&fleet.machine, &import, &archive);
    // "1: digest: sha256:… size: 527"
    let pushed = fleet.shell(&format!("{DOCKER} push {image}"));
    let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:"));
    digest.unwrap_or_else(|| panic!("no digest in {pushed}")).to_owned()
}

/// Takes all images off the engine, and with them what waits for a run.
fn forget_images(fleet: &Fleet) {
    fleet.shell(&format!(
        "{DOCKER} ps --all --quiet | xargs -r {DOCKER} rm --force --volumes && \
         {DOCKER} image prune --all --force"
    ));
    assert_eq!(fleet.shell(&format!("{DOCKER} images --all --quiet")), "");
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
