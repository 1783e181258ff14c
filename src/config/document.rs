//! `docs/settings.md`, which is made of the table of settings.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::KEYS;

const HEAD: &str = "\
# Settings of the agent

The agent reads `/etc/scalr-agent/agent.toml`, then the environment; a variable takes
precedence over the file. `scalr-agent configure` changes the file:

```sh
sudo scalr-agent configure --concurrency=4 --memory=1024
sudo scalr-agent configure --unset memory     # use the default again
sudo systemctl reload scalr-agent
```

The option of a setting is its name with hyphens: `agent_name` is `--agent-name`. An
unknown setting or variable is an error that names the nearest known one.

| setting | variable | default | meaning |
|---|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for key in KEYS {
        let variables: Vec<String> = key.variables.iter().map(|name| format!("`{name}`")).collect();
        let default =
            key.default.map_or_else(String::new, |default| format!("`{}`", default.text()));
        writeln!(
            page,
            "| `{}` | {} | {default} | {} |",
            key.name,
            variables.join(", older: "),
            key.about
        )
        .unwrap();
    }
    page
}

/// `UPDATE_DOCS=1 cargo test -p config` writes the page.
#[test]
fn the_page_of_settings_is_that_of_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, page()).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page(), "docs/settings.md is not that of the table: UPDATE_DOCS=1");
}
