//! What configurations, variables and hooks can do to a run: it never ends green without
//! the state that it made, and never destroys what its configuration does not say.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleet::{DOCKER, Fleet, IMAGE, configuration, creating};
use crate::pool::{Pool, lines_with_end};

const VARIABLE_AND_OUTPUT: &str = "\
variable \"word\" {
  type    = string
  default = \"none\"
}

output \"word\" {
  value = var.word
}
";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_keeps_its_state_and_destroys_nothing_unasked() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("--concurrency 2");
    fleet.wait_for_agent(&pool, "idle");

    destroys_nothing_without_a_configuration(&pool);
    is_never_applied_without_its_state(&fleet, &pool);
    takes_the_workspaces_variables_first(&pool);
    has_an_account_and_its_version(&fleet, &pool);
    takes_archives_as_people_make_them(&pool);
    runs_as_plain_terraform(&fleet, &pool);
    applies_what_was_planned(&fleet, &pool);
    applies_with_what_the_plan_left(&pool);
    ends_at_its_time_limit(&pool);
    ends_with_its_entry_point(&pool);
}

/// A workspace whose plans are applied at once.
fn workspace<'a>(pool: &Pool<'a>, name: &str, attributes: Value) -> Pool<'a> {
    let mut all = json!({"auto-apply": true});
    for (key, value) in attributes.as_object().expect("attributes") {
        all[key] = value.clone();
    }
    pool.with_workspace(name, all)
}

/// A configuration with one resource and one output, and further files.
fn one_resource(below: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let has_data = configuration().join("terraform_data.tf").is_file();
    let kind = if has_data { "terraform_data" } else { "null_resource" };
    let main = format!("{VARIABLE_AND_OUTPUT}\nresource \"{kind}\" \"one\" {{\n}}\n");
    write(folder.path(), &format!("{below}main.tf"), &main);
    for (path, content) in files {
        write(folder.path(), path, content);
    }
    folder
}

fn write(folder: &Path, path: &str, content: &str) {
    let file = folder.join(path);
    fs::create_dir_all(file.parent().expect("it has a folder")).expect("a folder");
    fs::write(file, content).expect("a file");
}

/// What a command of the shell prints in a folder.
fn packed(folder: &Path, command: &str) -> Vec<u8> {
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .output()
        .expect("a shell starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn ends_at_its_time_limit(pool: &Pool<'_>) {
    let pool = workspace(pool, "slow", json!({"apply-timeout-seconds": 20}));
    let begun = Instant::now();
    let run = pool.start_run(creating("slow", "sleep 600").path());
    pool.wait_for_ended(&run, "errored");
    assert!(begun.elapsed() < Duration::from_secs(120), "it took {:?}", begun.elapsed());
    let log = pool.log(&run, "apply");
    assert!(log.contains("Warning: the apply has reached its time limit of 20 s."), "{log}");
    assert!(log.contains("set the workspace's apply-timeout-seconds."), "{log}");
    assert!(!pool.is_locked(), "its state is saved");
}

fn ends_with_its_entry_point(pool: &Pool<'_>) {
    // A process in the background keeps the run's output open.
    let hooks = json!({"post-apply": "sleep 600 & echo started"});
    let pool = workspace(pool, "daemon", json!({"hooks": hooks}));
    let begun = Instant::now();
    let run = pool.start_run(one_resource("", &[]).path());
    pool.wait_for_ended(&run, "applied");
    assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
    let log = pool.log(&run, "apply");
    assert_eq!(lines_with_end(&log, "started"), 1, "{log}");
}

fn applies_what_was_planned(fleet: &Fleet, pool: &Pool<'_>) {
    const NAME: &str = "planned:1";
    fleet.shell(&format!("{DOCKER} tag {IMAGE} {NAME}"));
    let says =
        |what: &str| json!({"pre-apply": format!("echo {what} image is ${{WHICH:-planned}}")});
    let pool = workspace(
        pool,
        "planned",
        json!({"auto-apply": false, "image": NAME, "working-directory": "eu",
               "hooks": says("planned")}),
    );
    pool.variable("word", "terraform", false, "planned");
    let configuration = one_resource("eu/", &[("us/main.tf", "")]);
    let run = pool.start_run(configuration.path());
    pool.wait_for_status(&run, "planned");
    // The tag is another image's now.
    fleet.shell(&format!(
        "container=$({DOCKER} create {NAME} true) && \
         {DOCKER} commit --change 'ENV WHICH=changed' $container {NAME} && \
         {DOCKER} rm $container"
    ));
    pool.patch_workspace(json!({"working-directory": "us", "hooks": says("changed")}));
    pool.apply(&run);
    pool.wait_for_ended(&run, "applied");
    let log = pool.log(&run, "apply");
    assert_eq!(lines_with_end(&log, "planned image is planned"), 1, "{log}");
    assert_eq!((pool.output("word"), pool.resources()), (json!("planned"), 1));

    // The agent has another image by now.
    let pool =
        workspace(&pool, "planned-by-agent", json!({"auto-apply": false, "hooks": says("its")}));
    let run = pool.start_run(one_resource("", &[]).path());
    pool.wait_for_status(&run, "planned");
    let configure = |image: &str| {
        fleet.shell(&format!(
            "scalr-agent configure --image {image} && systemctl reload scalr-agent"
        ));
    };
    configure(NAME);
    pool.apply(&run);
    pool.wait_for_ended(&run, "applied");
    let log = pool.log(&run, "apply");
    assert_eq!(lines_with_end(&log, "its image is planned"), 1, "{log}");
    configure(IMAGE);
}

/// What its plan made in its working directory, or a line of its log.
fn applies_with_what_the_plan_left(pool: &Pool<'_>) {
    let makes = "mkdir made && cd made && echo open >plain && echo shut >shut && chmod 0 shut &&
        mkdir closed && echo in >closed/file && chmod 0500 closed && truncate -s 300M sparse &&
        ln -s plain inside && ln -s /etc/passwd out && ln -s ../../run up && mkfifo pipe &&
        ! mknod device c 1 3";
    let lists = "cd made && echo left $(ls) && echo has $(cat inside shut closed/file) \
        $(stat -c '%s %u' sparse) by $(id -u)";
    let hooks = json!({"pre-plan": makes, "pre-apply": lists});
    let pool = workspace(pool, "left", json!({"hooks": hooks}));
    let run = pool.start_run(one_resource("", &[]).path());
    pool.wait_for_ended(&run, "applied");
    let log = pool.log(&run, "plan");
    let note = "Not handed over to the apply: `made/out`, `made/pipe`, `made/up`; only files, \
                directories and links that stay in the configuration are.";
    assert_eq!(lines_with_end(&log, note), 1, "{log}");
    let log = pool.log(&run, "apply");
    assert_eq!(lines_with_end(&log, "left closed inside plain shut sparse"), 1, "{log}");
    let has = log.lines().find_map(|line| line.strip_prefix("has open shut in 314572800 "));
    let (owner, user) = has.and_then(|has| has.trim().split_once(" by ")).expect(&log);
    assert_eq!(owner, user, "{log}");
}

fn destroys_nothing_without_a_configuration(pool: &Pool<'_>) {
    let pool = workspace(pool, "moved", json!({"working-directory": "live/eu"}));
    let configuration = one_resource("live/eu/", &[("live/README.md", "more")]);
    pool.wait_for_ended(&pool.start_run(configuration.path()), "applied");
    assert_eq!(pool.resources(), 1);
    for directory in ["live", "live/typo", "live/README.md"] {
        pool.patch_workspace(json!({"working-directory": directory}));
        let run = pool.start_run(configuration.path());
        pool.wait_for_ended(&run, "errored");
        let log = pool.log(&run, "plan");
        let expected = format!("Error: no Terraform configuration in {directory}: ");
        assert!(log.contains(&expected), "{log}");
        assert!(log.contains("These folders have one: live/eu."), "{log}");
        assert!(!log.contains("to destroy"), "{log}");
    }
    assert_eq!(pool.resources(), 1);
}

fn is_never_applied_without_its_state(fleet: &Fleet, pool: &Pool<'_>) {
    let elsewhere = "terraform {\n  backend \"local\" {\n    path = \"/tmp/elsewhere\"\n  }\n}\n";
    let select = "terraform workspace new prod || terraform workspace select prod";
    for (name, variable, hook, files, end, says) in [
        (
            "workspace",
            ("TF_WORKSPACE", "prod"),
            "",
            &[][..],
            "applied",
            "Ignoring TF_WORKSPACE=prod",
        ),
        (
            "selected",
            ("A", "b"),
            select,
            &[],
            "applied",
            "Ignoring the selected Terraform workspace prod",
        ),
        ("override", ("A", "b"), "", &[("zzz_override.tf", elsewhere)], "applied", ""),
        ("backend", ("A", "b"), "", &[("backend.tf", elsewhere)], "applied", ""),
        ("flag", ("TF_CLI_ARGS_apply", "-state=/tmp/x"), "", &[], "errored", "has the flag -state"),
        (
            "hidden-flag",
            ("TF_CLI_ARGS_apply", r"-st\ate=/tmp/x"),
            "",
            &[],
            "errored",
            "on the agent's host: /tmp/x.",
        ),
        ("operation", ("_operation", "destroy"), "", &[], "applied", ""),
    ] {
        let pool = workspace(pool, name, json!({}));
        pool.variable(variable.0, "shell", false, variable.1);
        if !hook.is_empty() {
            pool.hooks(json!({"pre-plan": hook, "pre-apply": hook}));
        }
        let run = pool.start_run(one_resource("", files).path());
        let ended = pool.end(&run);
        let log = pool.log(&run, "plan") + &pool.log(&run, "apply");
        assert_eq!(ended, end, "{name}: {log}");
        assert!(log.contains(says), "{name}: {log}");
        assert_eq!(pool.resources(), u64::from(end == "applied"), "{name}: {log}");
        assert_eq!(pool.is_locked(), name == "hidden-flag", "{name}: {log}");
    }
    let kept = fleet.shell("cat /var/lib/scalr-agent/lost/*/tmp/x");
    assert!(kept.contains("\"lineage\""), "{kept}");
}

fn takes_the_workspaces_variables_first(pool: &Pool<'_>) {
    let pool = workspace(pool, "variables", json!({}));
    pool.variable("word", "terraform", false, "the workspace's");
    let files = [
        ("terraform.tfvars", "word = \"first\"\n"),
        ("aa.auto.tfvars", "word = \"aa\"\n"),
        ("zzzz.auto.tfvars", "word = \"zzzz\"\n"),
        ("zzzzz.auto.tfvars.json", "{\"word\": \"zzzzz\"}\n"),
    ];
    let run = pool.start_run(one_resource("", &files).path());
    pool.wait_for_ended(&run, "applied");
    assert_eq!(pool.output("word"), json!("the workspace's"));
}

fn has_an_account_and_its_version(fleet: &Fleet, pool: &Pool<'_>) {
    let pool = workspace(pool, "account", json!({"terraform-version": "0.12.31"}));
    pool.hooks(json!({"pre-init": "echo \"I am $(id -un) of $(id -gn) at $(pwd)\""}));
    let configuration = one_resource("", &[]);
    let run = pool.start_run(configuration.path());
    pool.wait_for_ended(&run, "errored");
    let log = pool.log(&run, "plan");
    assert!(log.contains("I am scalr of scalr at /scalr/work"), "{log}");
    assert!(log.contains("and the workspace asks for 0.12.31."), "{log}");
    assert_eq!(pool.states(), 0);
    pool.patch_workspace(json!({"allow-other-terraform-version": true}));
    pool.wait_for_ended(&pool.start_run(configuration.path()), "applied");
    assert_eq!(fleet.containers(), "");
}

fn takes_archives_as_people_make_them(pool: &Pool<'_>) {
    let elsewhere = r#"{"version": 3, "serial": 1, "lineage": "5b1c", "backend": {"type": "s3"}}"#;
    let state = r#"{"version": 4, "terraform_version": "1.0.0", "serial": 9, "lineage": "5b1c",
        "outputs": {}, "resources": []}"#;
    let files = [
        ("live/eu/modules/m/main.tf", ""),
        ("live/eu/m.tf", "module \"m\" {\n  source = \"./modules/m\"\n}\n"),
        ("live/eu/.terraform/terraform.tfstate", elsewhere),
        ("live/eu/terraform.tfstate", state),
        ("live/eu/terraform.tfstate.backup", state),
    ];
    let folder = one_resource("live/eu/", &files);
    let pool = workspace(pool, "archive", json!({"working-directory": "live/eu"}));
    // No entry for a folder, as from `git ls-files | tar --files-from=-`.
    let archive = packed(folder.path(), &format!("{WITHOUT_FOLDERS} | gzip"));
    let run = pool.start_run_of(&archive);
    pool.wait_for_ended(&run, "applied");
    let log = pool.log(&run, "plan");
    assert!(log.contains("Left out of the configuration, "), "{log}");
    assert!(log.contains("`live/eu/.terraform`") && log.contains("terraform.tfstate`"), "{log}");
    assert_eq!((pool.states(), pool.resources()), (1, 1));

    // What a plan makes is there for its apply, which has a container of its own.
    let pool = workspace(&pool, "made", json!({}));
    pool.hooks(json!({"pre-plan": "mkdir builds && echo made by the plan >builds/fn.zip"}));
    let run = pool.start_run(creating("made", "cat builds/fn.zip").path());
    pool.wait_for_ended(&run, "applied");
    let log = pool.log(&run, "apply");
    assert_eq!(lines_with_end(&log, "made by the plan"), 1, "{log}");
}

/// Files by their paths, or variables by their names.
type Pairs = &'static [(&'static str, &'static str)];

/// As people make archives, with a command that prints a tar of the current folder.
const TAR: &str = "tar --create .";
const WITHOUT_FOLDERS: &str = "find . -type f | tar --create --no-recursion --files-from=-";
const WITH_HARD_LINKS: &str = "ln main.tf second.md; ln -s main.tf third.md; tar --create .";
const PAX: &str = "tar --create --format=pax --xattrs .";
const SPARSE: &str = "truncate --size=1M holes.bin; tar --create --sparse .";

/// Configurations, variables and archives through an agent, and by plain Terraform in a
/// container of the same image: they end alike, leave the same, and say the same but for the lines
/// that docs/runs.md lists.
fn runs_as_plain_terraform(fleet: &Fleet, pool: &Pool<'_>) {
    let module: Pairs = &[("m.tf", "module \"m\" {\n  source = \"./m\"\n}\n"), ("m/main.tf", "")];
    let cases: [(&str, Pairs, Pairs, &str, bool); 9] = [
        ("plain", &[], &[], TAR, true),
        ("module", module, &[], TAR, true),
        ("auto-variables", &[("a.auto.tfvars", "word = \"auto\"\n")], &[], TAR, true),
        ("environment", &[], &[("TF_VAR_word", "it's \"so\" $HOME"), ("_kind", "x")], PAX, true),
        ("wrong", &[("bad.tf", "output \"bad\" {\n  value = var.missing\n}\n")], &[], TAR, false),
        ("not-hcl", &[("bad.tf", "resource {{\n")], &[], TAR, false),
        ("without-folders", module, &[], WITHOUT_FOLDERS, true),
        ("hard-links", &[], &[], WITH_HARD_LINKS, true),
        ("sparse", &[], &[], SPARSE, true),
    ];
    for (name, files, variables, tar, succeeds) in cases {
        let folder = one_resource("", files);
        let archive = packed(folder.path(), &format!("{{ {tar}; }} | gzip"));
        let plain = Plain::run(fleet, name, &packed(folder.path(), TAR), variables);
        assert_eq!(plain.succeeds, succeeds, "{name}: {}", plain.log);

        let pool = workspace(pool, name, json!({}));
        for (key, value) in variables {
            pool.variable(key, "shell", false, value);
        }
        let run = pool.start_run_of(&archive);
        pool.wait_for_ended(&run, if succeeds { "applied" } else { "errored" });
        let log = pool.log(&run, "plan") + &pool.log(&run, "apply");
        assert_eq!(comparable(&log), comparable(&plain.log), "{name}");
        if succeeds {
            assert_eq!(pool.output("word"), plain.word, "{name}");
            assert_eq!(pool.resources(), 1, "{name}");
        }
    }
}

/// What plain Terraform made of a configuration.
struct Plain {
    log: String,
    succeeds: bool,
    word: Value,
}

impl Plain {
    fn run(fleet: &Fleet, name: &str, archive: &[u8], variables: &[(&str, &str)]) -> Self {
        let steps = "\
            exec 2>&1; mkdir /tmp/w && cd /tmp/w && tar -x; exec </dev/null\n\
            run() { terraform \"$@\" || { [ $? = 2 ] && [ $1 = plan ]; }; }\n\
            run init -input=false && \
            run plan -input=false -detailed-exitcode -out=/tmp/plan && \
            rm -rf .terraform && run init -input=false && \
            run apply -input=false /tmp/plan\n\
            echo \"ended with $?\"; terraform output -json word 2>/dev/null || :";
        let environment: Vec<String> = variables
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .chain(["TF_IN_AUTOMATION=1", "TF_INPUT=0", "CHECKPOINT_DISABLE=1"].map(String::from))
            .collect();
        let file = format!("/root/{name}.env");
        fleet.put(&file, "0644", environment.join("\n").as_bytes());
        fleet.put(&format!("/root/{name}.sh"), "0644", steps.as_bytes());
        fleet.put(&format!("/root/{name}.tar"), "0644", archive);
        let said = fleet.shell(&format!(
            "{DOCKER} run --rm --interactive --network none --env-file {file} \
             --entrypoint /bin/sh {IMAGE} -c \"$(cat /root/{name}.sh)\" </root/{name}.tar"
        ));
        let (log, rest) = said.split_once("ended with ").expect("it says how it ended");
        let (code, word) = rest.split_once('\n').unwrap_or((rest, ""));
        Self {
            log: log.to_owned(),
            succeeds: code == "0",
            word: serde_json::from_str(word).unwrap_or_default(),
        }
    }
}

/// The lines of a log without those that say something else each time, and those that
/// only an agent's log has.
fn comparable(log: &str) -> Vec<String> {
    let own = ["Successfully configured the backend \"local\"!", "use this backend unless"];
    let differs = ["Saved the plan to:", "terraform apply \"/"];
    // Of a file that is not HCL, Terraform tells once more where it looks for a backend.
    let mut seen = HashSet::new();
    log.lines()
        .map(str::trim_end)
        .filter(|line| !line.split('\u{1b}').all(|part| part.is_empty() || is_colour(part)))
        .filter(|line| own.iter().chain(&differs).all(|part| !line.contains(part)))
        .map(|line| {
            // Ids and times are new in each run.
            match line.split_once(" complete after ") {
                Some((start, _)) => start.to_owned(),
                None => line.to_owned(),
            }
        })
        .filter(|line| seen.insert(line.clone()))
        .collect()
}

/// Whether this is what follows an escape that only changes how text looks.
fn is_colour(part: &str) -> bool {
    part.starts_with('[') && part.ends_with('m')
}
