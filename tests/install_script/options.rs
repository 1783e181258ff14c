//! What the script takes, and how it says so.

use clap::CommandFactory as _;
use std::collections::BTreeSet;
use std::fs;

use crate::host::{Host, Packages, script_file};

fn script() -> String {
    fs::read_to_string(script_file()).unwrap()
}

fn help() -> String {
    let script = script();
    let (_, rest) = script.split_once("<<'USAGE'\n").unwrap();
    rest.split_once("\nUSAGE\n").unwrap().0.to_owned()
}

/// The options in a text: `--` and a name.
fn options(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(str::to_owned)
        .collect()
}

/// The text of a function.
fn function(name: &str) -> String {
    let script = script();
    let (_, rest) = script.split_once(&format!("\n{name}() {{\n")).unwrap();
    rest.split_once("\n}\n").unwrap().0.to_owned()
}

#[test]
fn help_fits_a_terminal_and_needs_nothing() {
    Host::each(Packages::Apt, |host| {
        for option in ["--help", "-h", "--url x --help"] {
            let said = host.run(&format!("main {option}"));
            said.went_well();
            assert_eq!(said.stdout.trim_end(), help());
        }
        assert_eq!(host.calls(), "");
    });
    for line in help().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn help_names_every_option() {
    let mut taken = options(&function("read_options"));
    taken.extend(options(&function("is_ours")));
    // Named only to be refused.
    taken.remove("--token");
    let missing: Vec<_> = taken.difference(&options(&help())).cloned().collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn help_names_every_variable() {
    let script = script();
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    for (at, _) in script.match_indices("SCALR_AGENT_") {
        let rest = &script[at..];
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap()];
        assert!(help().contains(name), "{name}");
    }
}

#[test]
fn help_names_every_exit_code() {
    let help = help();
    let (_, codes) = help.split_once("\nexit codes\n").unwrap();
    let (codes, _) = codes.split_once("\nexamples\n").unwrap();
    for (at, _) in script().match_indices("fail ") {
        let code: String = script()[at + 5..].chars().take_while(char::is_ascii_digit).collect();
        let named = |word: &str| word.trim_matches(['(', ',']) == code;
        assert!(code.is_empty() || codes.split_whitespace().any(named), "{code}");
    }
    for code in ["0", "129,", "130,", "143"] {
        assert!(codes.split_whitespace().any(|word| word == code), "{code}");
    }
}

#[test]
fn its_version_is_the_package_s() {
    Host::each(Packages::Apt, |host| {
        let said = host.run("main --version");
        assert_eq!(said.stdout, concat!("install.sh ", env!("CARGO_PKG_VERSION"), "\n"));
    });
}

/// What the setup program takes, the script passes on, and tells of.
#[test]
fn help_names_all_options_of_the_installation() {
    let help_of = |command: &str| {
        let mut program = setup::Cli::command();
        // The options of every subcommand are among each one's.
        program.build();
        let command = program.find_subcommand_mut(command).unwrap();
        options(&command.render_long_help().to_string())
    };
    let mut wanted: BTreeSet<_> =
        help_of("install").union(&help_of("uninstall")).cloned().collect();
    // What the script says itself, and what is for other programs, for directory
    // trees, or in an example.
    for option in ["--package", "--repository", "--upgrade", "--format", "--root"] {
        assert!(wanted.remove(option), "{option}");
    }
    let missing: Vec<_> = wanted.difference(&options(&help())).cloned().collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn wrong_usage_is_refused_before_anything_is_done() {
    Host::each(Packages::Apt, |host| {
        for (options, why) in [
            ("--url", "--url needs a value"),
            ("--url=", "the value of --url is empty"),
            ("--token secret", "give --token-file FILE"),
            ("--token=secret", "give --token-file FILE"),
            ("--url ftp://pools.test", "should be https://SERVER"),
            ("--url 'https://pools.test?x=1'", "should be https://SERVER"),
            ("--url 'https://pools.test/#pools'", "should be https://SERVER"),
            ("--url 'https://pools.test '", "should be https://SERVER"),
            ("--token-file -", "standard input is this script"),
            ("--offline /nowhere", "there is no folder /nowhere"),
            ("--offline tmp", "is no unpacked offline bundle"),
        ] {
            // $0 is no file here, as behind a pipe.
            let said = host.run(&format!("rm install.sh; main --url https://pools.test {options}"));
            said.refused(2, why);
            assert!(!said.stderr.contains("secret"), "{said:?}");
            host_again(host);
        }
        host.run("main --repository-only").refused(2, "which server?");
        assert_eq!(host.calls(), "");
    });
}

/// The script that `rm` has taken.
fn host_again(host: &Host) {
    let script = script();
    let functions = script.strip_suffix("main \"$@\"; }\n").unwrap();
    fs::write(host.path("install.sh"), format!("{functions}}}\n")).unwrap();
}

#[test]
fn one_thing_at_a_time_comes_by_standard_input() {
    Host::each(Packages::Apt, |host| {
        host.install("--token-file - --http-proxy -").refused(2, "only one of");
        host.install("--token-file - --http-proxy http://proxy.test:3128")
            .refused(2, "with a proxy, the token can't come from standard input");
    });
}

#[test]
fn a_word_is_quoted_so_that_it_is_read_back() {
    Host::each(Packages::Apt, |host| {
        let said = host.run(
            "tab='\t' newline='\n' back='\\'\n\
             set -- plain '' 'two words' \"it's\" '$(id)' '`id`' '*' '\"' \"$tab\" \
                 \"a${newline}b$newline\" \"$back\" '~' '#' '!' -n 'ä'\n\
             before=$(printf '<%s>' \"$@\")\n\
             eval \"set -- $(quoted \"$@\")\"\n\
             [ \"$(printf '<%s>' \"$@\")\" = \"$before\" ] && [ $# -eq 16 ] || echo \"$*\" >&2",
        );
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    });
}

#[test]
fn who_is_not_root_gets_the_command_to_run() {
    Host::each(Packages::Apt, |host| {
        let user = [("user", "1000")];
        let piped = "rm install.sh; main --url https://pools.test";
        host.run_with(piped, &user, "").refused(7, "become root with `su -`");
        host_again(host);
        host.tool("sudo", "exit 1\n");
        let said = host.run_with(piped, &user, "");
        said.refused(7, "curl -fsSL https://pools.test/install.sh | sudo sh -s -- OPTIONS");
        host_again(host);
        // install.sh is a file here.
        let said = host.install_with("", &[("user", "1000"), ("SCALR_AGENT_TOKEN", "secret")]);
        said.refused(7, "sudo sh install.sh OPTIONS");
        said.refused(7, "use --token-file FILE");
        assert!(!said.stderr.contains("secret"));
        assert_eq!(host.calls(), "");
    });
}

#[test]
fn what_is_not_supported_is_refused_with_a_reason() {
    Host::each(Packages::Apt, |host| {
        host.tool("dpkg", "echo i386\n");
        host.install("").refused(5, "this system's packages are for i386");
        host.without_tool("dpkg");
        host.install("").refused(5, "has neither dpkg nor rpm");
        host.tool("uname", "[ \"$1\" = -s ] && echo Linux || echo riscv64\n");
        host.install("").refused(5, "no packages for riscv64");
        host.tool("uname", "echo Darwin\n");
        host.install("").refused(5, "agents run on Linux; this is Darwin");
        assert_eq!(host.calls(), "");
    });
}
