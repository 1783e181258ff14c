//! `proxy`.

use crate::tree::Tree;

const DROP_IN: &str = "/etc/systemd/system/scalr-agent.service.d/proxy.conf";
const LINK: &str = "/etc/systemd/system/scalr-docker.service.d/proxy.conf";
const SECRETS: &str = "/etc/scalr-agent/proxy.env";
const BY_HAND: &str = "[Service]\nEnvironment=\"HTTP_PROXY=http://by-hand:8080\"\n";

#[test]
fn set_again_shown_and_removed() {
    let tree = Tree::new();
    let before = tree.snapshot();
    let set = ["proxy", "--http", "http://proxy.example.com:3128", "--no-proxy", ".example.com"];
    let said = tree.setup(&set);
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(std::fs::read_link(tree.path(LINK)).unwrap().to_str(), Some(DROP_IN));
    let text = tree.read(DROP_IN);
    for line in [
        "Environment=\"HTTPS_PROXY=http://proxy.example.com:3128\"",
        "Environment=\"no_proxy=.example.com,localhost,127.0.0.1,::1,169.254.169.254\"",
    ] {
        assert!(text.contains(line), "{text}");
    }

    let after = tree.snapshot();
    let said = tree.setup(&set);
    assert_eq!(
        (said.code, said.stdout.trim()),
        (0, "The proxy is already up to date; nothing changed.")
    );
    assert_eq!(tree.snapshot(), after);

    let shown = tree.setup(&["proxy", "show", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["written_by"], "setup");
    assert_eq!(shown["engine"], true);
    assert_eq!(shown["variables"]["http_proxy"], "http://proxy.example.com:3128");

    assert_eq!(tree.setup(&["proxy", "remove"]).code, 0);
    let left: Vec<String> =
        tree.snapshot().into_iter().filter(|line| line.contains("proxy")).collect();
    assert!(left.is_empty(), "{left:?}");
    tree.setup(&["uninstall"]);
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_directory_in_the_place_of_the_drop_in_is_named_with_and_without_force() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.path(DROP_IN)).unwrap();
    let before = tree.snapshot();
    let set = ["proxy", "--http", "http://proxy.example.com:3128", "--force"];
    for arguments in [&set[..3], &set] {
        let said = tree.setup(arguments);
        assert_eq!(said.code, 1, "{}", said.all());
        let advice = format!("{DROP_IN} is a directory, not a file\nRemove it");
        assert!(said.stderr.contains(&advice), "{}", said.all());
        assert_eq!(tree.snapshot(), before);
    }
}

#[test]
fn a_drop_in_without_a_proxy_is_not_taken_for_one_with_a_hidden_one() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.path(DROP_IN).parent().unwrap()).unwrap();
    std::fs::write(tree.path(DROP_IN), "[Service]\nNice=5\n").unwrap();
    let said = tree.setup(&["proxy", "show"]);
    assert!(said.stdout.starts_with(&format!("{DROP_IN} sets no proxy.\n")), "{}", said.all());
}

#[test]
fn a_password_is_for_root_alone() {
    let tree = Tree::new();
    let url = "http://user:p%2Fss@proxy.example.com:3128";
    let said = tree.setup_with(&["proxy", "--http", "-"], &[], &format!("{url}\n"));
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(!said.all().contains("p%2Fss"));
    assert!(!tree.read(DROP_IN).contains("p%"), "{}", tree.read(DROP_IN));
    assert!(tree.read(SECRETS).contains(&format!("HTTPS_PROXY=\"{url}\"\n")));
    assert_eq!(tree.mode(SECRETS), 0o600);
    assert_eq!(tree.mode(DROP_IN), 0o644);
    let shown = tree.setup(&["proxy", "show"]).stdout;
    assert!(shown.contains("http://user:***@proxy.example.com:3128"), "{shown}");

    // Without a password, the file that held it goes.
    assert_eq!(tree.setup(&["proxy", "--http", "http://proxy.example.com:3128"]).code, 0);
    assert!(!tree.path(SECRETS).exists());
}

#[test]
fn a_password_in_a_dry_run_is_not_shown() {
    let tree = Tree::new();
    let before = tree.snapshot();
    let url = "http://user:hunter2@proxy:3128\n";
    let said = tree.setup_with(&["proxy", "--http", "-", "--dry-run"], &[], url);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(!said.all().contains("hunter2"), "{}", said.all());
    assert!(said.stdout.contains("+EnvironmentFile=-/etc/scalr-agent/proxy.env"));
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_is_refused_changes_nothing() {
    let tree = Tree::new();
    tree.setup(&["proxy", "--http", "http://proxy.example.com:3128"]);
    let before = tree.snapshot();
    for bad in [
        "proxy.example.com:3128",
        "ftp://proxy",
        "http://",
        "http://proxy\n[Service]\nExecStartPre=/bin/sh",
        "http://pro\"xy:1",
        "http://proxy:1/path",
    ] {
        let said = tree.setup(&["proxy", "--http", bad]);
        assert_eq!(said.code, 2, "{bad}: {}", said.all());
    }
    let said = tree.setup(&["proxy", "--http", "http://p:1", "--no-proxy", "a\nb"]);
    assert_eq!(said.code, 2, "{}", said.all());
    assert_eq!(tree.setup(&["proxy"]).code, 2);
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_was_written_by_hand_is_used_and_not_overwritten() {
    let tree = Tree::new();
    tree.put(DROP_IN, BY_HAND);
    tree.link(LINK, DROP_IN);
    let before = tree.snapshot();
    let shown = tree.setup(&["proxy", "show"]).stdout;
    assert!(shown.contains("http://by-hand:8080") && shown.contains("by hand"), "{shown}");
    for command in [&["proxy", "--http", "http://new:1"][..], &["proxy", "remove"][..]] {
        let said = tree.setup(command);
        assert_eq!(said.code, 1, "{}", said.all());
        assert!(said.stderr.contains("--force"), "{}", said.stderr);
    }
    assert_eq!(tree.snapshot(), before);

    assert_eq!(tree.setup(&["proxy", "--http", "http://new:1", "--force"]).code, 0);
    assert!(tree.read(DROP_IN).contains("http://new:1"));
    // And what was there comes back.
    assert_eq!(tree.setup(&["uninstall"]).code, 0);
    assert_eq!(tree.read(DROP_IN), BY_HAND);
}

#[test]
fn the_proxy_of_the_hosts_own_docker_is_shown_with_its_file() {
    let tree = Tree::new();
    tree.put("/etc/scalr-agent/agent.toml", "engine = \"unix:///var/run/docker.sock\"\n");
    let shown = || tree.setup(&["proxy", "show"]).stdout;
    assert!(shown().contains("docker has no proxy"), "{}", shown());
    let drop_in = "/etc/systemd/system/docker.service.d/http-proxy.conf";
    tree.put(drop_in, "[Service]\nEnvironment=HTTPS_PROXY=http://u:hunter2@one:3128\n");
    let daemon = "{\"proxies\": {\"https-proxy\": \"http://two:3128\"}, \"dns\": []}";
    tree.put("/etc/docker/daemon.json", daemon);
    let shown = shown();
    for line in [
        "No proxy is set.",
        &format!("docker: HTTPS_PROXY http://u:***@one:3128 ({drop_in})"),
        "docker: https-proxy http://two:3128 (/etc/docker/daemon.json)",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let json = tree.setup(&["proxy", "show", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["engine_proxy"][0]["file"], drop_in);
}

#[test]
fn a_link_that_leads_nowhere_is_named_with_its_target_and_replaced_by_force() {
    let tree = Tree::new();
    tree.link(LINK, "/gone/proxy.conf");
    let before = tree.snapshot();
    let said = tree.setup(&["proxy", "--http", "http://new:1"]);
    assert_eq!(said.code, 1, "{}", said.all());
    let why = format!("{LINK} is a symbolic link to /gone/proxy.conf that was made by hand");
    assert!(said.stderr.contains(&why), "{}", said.all());
    assert_eq!(tree.snapshot(), before);
    assert_eq!(tree.setup(&["proxy", "--http", "http://new:1", "--force"]).code, 0);
    assert_eq!(tree.setup(&["uninstall"]).code, 0);
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn an_edit_by_hand_makes_it_somebody_elses() {
    let tree = Tree::new();
    tree.setup(&["proxy", "--http", "http://proxy:3128"]);
    tree.put(DROP_IN, BY_HAND);
    let said = tree.setup(&["proxy", "--http", "http://new:1"]);
    assert_eq!(said.code, 1, "{}", said.all());
    assert_eq!(tree.read(DROP_IN), BY_HAND);
    let said = tree.setup(&["uninstall"]);
    assert!(said.stdout.contains(&format!("{DROP_IN} was edited")), "{}", said.all());
    assert_eq!(tree.read(DROP_IN), BY_HAND);
}

#[test]
fn the_environments_proxy_is_taken_when_asked_for() {
    let tree = Tree::new();
    let variables = [("HTTPS_PROXY", "http://proxy:3129"), ("no_proxy", "internal")];
    let said = tree.setup_with(&["proxy", "--from-environment"], &variables, "");
    assert_eq!(said.code, 0, "{}", said.all());
    let text = tree.read(DROP_IN);
    assert!(text.contains("HTTPS_PROXY=http://proxy:3129"), "{text}");
    assert!(text.contains("NO_PROXY=internal,localhost"), "{text}");
    assert_eq!(tree.setup(&["proxy", "--from-environment"]).code, 2);
}

#[test]
fn a_password_that_apt_cannot_be_given_is_refused_and_nothing_is_changed() {
    let tree = Tree::new();
    tree.put("/etc/os-release", "ID=ubuntu\nVERSION_ID=18.04\nPRETTY_NAME=\"Ubuntu 18.04\"\n");
    tree.put(
        "/etc/apt/sources.list.d/scalr-agent.sources",
        "Types: deb\nURIs: https://pools.example.com/packages/apt\n",
    );
    let before = tree.snapshot();
    let url = "http://me:two%20words@proxy.example.com:3128";
    let token = [("SCALR_AGENT_TOKEN", "the-token")];
    let server = "https://pools.example.com";
    let of_shell = [token[0], ("HTTPS_PROXY", url)];
    for (arguments, environment) in [
        (&["proxy", "--http", url][..], &token[..]),
        (&["proxy", "--http", "http://proxy.example.com:3128", "--https", url], &token),
        (&["install", "--url", server, "--http-proxy", url], &token),
        (&["install", "--url", server, "--upgrade", "--no-start"], &of_shell),
        (&["install", "--url", server, "--repository-only"], &of_shell),
    ] {
        let said = tree.setup_with(arguments, environment, "");
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.all());
        assert!(said.stderr.contains("a space or a line break"), "{}", said.all());
        assert!(!said.all().contains("two%20words"), "{}", said.all());
        assert_eq!(tree.snapshot(), before, "{arguments:?}");
    }
}
