//! What a distribution's review would ask of the built packages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::built::{KINDS, only, output, unpacked};

/// Where the packages are, what they are called, and their programs.
const PACKAGES: [(&str, &str, &[&str]); 2] = [
    ("SCALR_TEST_PACKAGES", "scalr-agent", &["scalr-agent", "scalr-agent-setup"]),
    ("SCALR_TEST_SERVER_PACKAGES", "scalr-server", &["scalr-server"]),
];

/// The kinds of packages there are of one; the server needs none of its own for
/// Enterprise Linux 7.
fn kinds(name: &str) -> &'static [&'static str] {
    if name == "scalr-agent" { &KINDS } else { &["deb", "rpm"] }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn lintian_finds_nothing_that_is_not_explained() {
    for (folder, ..) in PACKAGES {
        let said = output(
            Command::new("lintian")
                .args(["--allow-root", "--fail-on", "none", "--tag-display-limit", "0"])
                .arg(only(folder, "deb")),
        );
        let found: Vec<&str> =
            said.lines().filter(|line| line.starts_with("E:") || line.starts_with("W:")).collect();
        assert!(found.is_empty(), "{said}");
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn rpmlint_finds_nothing_that_is_not_explained() {
    let config = source("pkg/rpmlint.toml");
    for (folder, name, _) in PACKAGES {
        for kind in kinds(name).iter().filter(|kind| **kind != "deb") {
            let mut lint = Command::new("rpmlint");
            lint.arg("--config").arg(&config).arg(only(folder, kind));
            // Its exit code is 64 at errors.
            let said = lint.output().expect("rpmlint starts");
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(said.contains(" 0 errors, 0 warnings"), "{said}");
        }
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn every_exception_has_its_reason() {
    for file in ["pkg/lintian/scalr-agent", "pkg/lintian/scalr-server", "pkg/rpmlint.toml"] {
        let text = std::fs::read_to_string(source(file)).unwrap();
        let begin = text.find("Filters = [").unwrap_or(0);
        let mut explained = false;
        for line in text[begin..].lines().map(str::trim).filter(|line| !line.starts_with("Filters"))
        {
            // One reason may be that of several in a row.
            explained = line.starts_with('#') || explained && !line.is_empty();
            assert!(explained || line.is_empty(), "{file}: {line} has no reason above it");
        }
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn every_command_has_a_page_and_every_program_completions() {
    for (folder, name, programs) in PACKAGES {
        for kind in kinds(name) {
            let zsh = if *kind == "deb" { "vendor-completions" } else { "site-functions" };
            let root = unpacked(&only(folder, kind));
            let share = root.join("usr/share");
            for program in programs {
                let mut commands = BTreeSet::new();
                commands_of(&root.join("usr/bin").join(program), &[], &mut commands);
                for words in commands {
                    let page = format!("man/man1/{program}{words}.1.gz");
                    let text = output(Command::new("gunzip").arg("-c").arg(share.join(&page)));
                    assert!(text.contains(".SH SYNOPSIS"), "{page}");
                }
                let bash = share.join("bash-completion/completions").join(program);
                output(Command::new("bash").arg("-n").arg(&bash));
                for file in [
                    bash,
                    share.join("zsh").join(zsh).join(format!("_{program}")),
                    share.join("fish/vendor_completions.d").join(format!("{program}.fish")),
                ] {
                    let text = std::fs::read_to_string(&file)
                        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                    assert!(text.contains(program), "{}", file.display());
                }
            }
        }
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn the_bill_of_materials_names_every_library_and_each_has_its_licence() {
    for (folder, name, _) in PACKAGES {
        for kind in kinds(name) {
            let package = only(folder, kind);
            let root = unpacked(&package);
            let doc = root.join("usr/share/doc").join(name);
            let bill = std::fs::read_to_string(doc.join("sbom.cdx.json")).unwrap();
            let beside = format!("{}.cdx.json", package.display());
            assert_eq!(bill, std::fs::read_to_string(beside).unwrap());
            let bill: serde_json::Value = serde_json::from_str(&bill).unwrap();
            assert_eq!(bill["bomFormat"], "CycloneDX");
            assert_eq!(bill["metadata"]["component"]["name"], name);
            let licences =
                output(Command::new("gunzip").arg("-c").arg(doc.join("third-party.txt.gz")));
            let components = bill["components"].as_array().unwrap();
            for component in components.iter().filter(|one| one["type"] == "library") {
                let library = format!(
                    "{} {}",
                    component["name"].as_str().unwrap(),
                    component["version"].as_str().unwrap()
                );
                assert!(licences.matches(&library).count() >= 2, "{library} has no licence");
                assert_eq!(component["hashes"][0]["alg"], "SHA-256", "{library}");
            }
            let has = |name: &str| components.iter().any(|one| one["name"] == name);
            assert_eq!(has("bollard"), name == "scalr-agent");
            assert_eq!(has("sqlx"), name == "scalr-server");
            assert!(components.len() > 50);
            let engine = components.iter().find(|one| one["bom-ref"] == "engine");
            assert_eq!(engine.is_some(), name == "scalr-agent");
            // The one that is really in it.
            let record = root.join("usr/lib/scalr-agent/engine.toml");
            if let Some(engine) = engine {
                let record = std::fs::read_to_string(record).unwrap();
                let sum = engine["hashes"][0]["content"].as_str().unwrap();
                assert!(record.contains(sum) && licences.contains(sum), "{record}");
            }
        }
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn a_debugger_finds_the_lines_of_each_program() {
    for (folder, _, programs) in PACKAGES {
        let root = unpacked(&only(folder, "deb"));
        let symbols = tempfile::tempdir().unwrap();
        output(
            Command::new("tar")
                .args(["--extract", "--gzip", "--file"])
                .arg(only(folder, "gz"))
                .arg("--directory")
                .arg(symbols.path()),
        );
        for program in programs {
            let file = root.join("usr/bin").join(program);
            let notes = output(Command::new("readelf").arg("--notes").arg(&file));
            let id = notes.split("Build ID: ").nth(1).expect("a build id").trim();
            let debug = symbols.path().join(format!(
                "usr/lib/debug/.build-id/{}/{}.debug",
                &id[..2],
                &id[2..]
            ));
            assert!(debug.is_file(), "no symbols of {program}: {}", debug.display());
            let lines = sections(&debug);
            assert!(lines.contains(".debug_line"), "{program}: {lines}");
            let packed = sections(&file);
            assert!(!packed.contains(".debug_info") && !packed.contains(".symtab"), "{packed}");
        }
    }
}

fn sections(file: &Path) -> String {
    output(Command::new("readelf").args(["--wide", "--sections"]).arg(file))
}

/// The program's commands as its help lists them: `-check`, `-proxy-show`, ….
fn commands_of(program: &Path, words: &[&str], found: &mut BTreeSet<String>) {
    let help = output(Command::new(program).args(words).arg("--help"));
    found.insert(words.iter().map(|word| format!("-{word}")).collect());
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return };
    // A description that goes on is further in than a name.
    for line in list.lines().take_while(|line| !line.is_empty()) {
        let name = line.strip_prefix("  ").unwrap_or_default();
        if name.starts_with(' ') || name.starts_with("help ") {
            continue;
        }
        let name = name.split(' ').next().unwrap();
        commands_of(program, &[words, &[name]].concat(), found);
    }
}

fn source(path: &str) -> PathBuf {
    tests::checkout(path)
}
