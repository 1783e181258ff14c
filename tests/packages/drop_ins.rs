//! The drop-ins for the oldest systemd. The units themselves are held against the
//! same table where they are rendered.

use std::process::Command;

/// `section<TAB>directive`, all that systemd 219 knows.
const KNOWN: &str = include_str!("directives-219.tsv");

#[test]
fn systemd_219_knows_every_directive() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_scalr-agent-setup"))
        .args(["units", "--systemd-version", "219", "--output"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut directives = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let mut section = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((name, _)) = line.split_once('=') {
                let wanted = format!("{section}\t{name}");
                let known = KNOWN.lines().any(|line| line == wanted);
                assert!(known, "{}: [{section}] {name}=", file.display());
                directives += 1;
            }
        }
    }
    assert!(directives > 0, "nothing was rendered");
}
