//! docs/getting-started.md, run line by line on two new machines as a new user would.
//!
//! What differs from a user's machines:
//!
//! | on the page | here |
//! |---|---|
//! | `pools.example.com` is in the DNS | it is in `/etc/hosts` of both machines |
//! | the image comes from a registry | the kit's image is loaded under that name: no test reaches the internet |
//! | `CA_SHA256`, `KEY_SHA256` | what the server printed |
//! | the token is pasted | it comes on standard input |

use std::collections::HashMap;
use std::io::{Seek as _, Write as _};
use std::process::Command;
use std::time::Instant;

use crate::fleet::{DOCKER, kit};
use crate::machine::{World, text};

const PAGE: &str = include_str!("../../docs/getting-started.md");

/// How many commands the page may take on the server and on each host.
const MOST: [(&str, usize); 2] = [("server", 6), ("host", 2)];

#[test]
#[ignore = "boots machines: run scripts/test"]
fn every_line_of_the_page_works_with_an_ubuntu_server_and_a_centos_host() {
    Walk::new("ubuntu-18.04", "deb", "centos-8").run();
}

#[test]
#[ignore = "boots machines: run scripts/test"]
fn every_line_of_the_page_works_with_a_centos_server_and_an_ubuntu_host() {
    Walk::new("centos-8", "rpm", "ubuntu-18.04").run();
}

/// A code block: its info string and its text.
#[derive(Debug)]
struct Block {
    info: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in PAGE.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some(Block { info: info.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a code block of the page has no end");
    blocks
}

struct Walk {
    world: World,
    server: &'static str,
    family: &'static str,
    host: &'static str,
    counts: HashMap<String, usize>,
    /// What stands on the page for what the server printed.
    printed: Vec<(&'static str, String)>,
    install_line: String,
}

impl Walk {
    fn new(server: &'static str, family: &'static str, host: &'static str) -> Self {
        let world = World::new();
        world.boot(server, &[]);
        world.boot(host, &[]);
        let address = world.shell(server, "hostname -I").split(' ').next().unwrap().to_owned();
        for machine in [server, host] {
            world.shell(machine, &format!("echo '{address} pools.example.com' >>/etc/hosts"));
        }
        world.put(server, "/root/scalr-agent-bundle.tar", "0644", &bundle());
        let (counts, printed) = (HashMap::new(), Vec::new());
        Self { world, server, family, host, counts, printed, install_line: String::new() }
    }

    fn run(mut self) {
        let begun = Instant::now();
        for block in blocks() {
            let words: Vec<&str> = block.info.split(' ').collect();
            match words.as_slice() {
                ["text"] => {}
                ["sh", "server", family] if *family != self.family => {}
                ["sh", "server", ..] => self.on_server(&block.text),
                ["sh", "host"] => self.on_host(&block.text),
                ["hcl", file] => {
                    let file = format!("/root/{file}");
                    self.world.put(self.server, &file, "0644", block.text.as_bytes());
                }
                _ => panic!("the page has a block that nothing runs: {block:?}"),
            }
        }
        eprintln!("the page took {:?}: {:?}", begun.elapsed(), self.counts);
        for (place, most) in MOST {
            let count = self.counts.get(place).copied().unwrap_or(0);
            assert!((1..=most).contains(&count), "{count} commands on the {place}");
        }
    }

    fn on_server(&mut self, command: &str) {
        let output = self.command("server", self.server, command, "");
        if command.contains("pool create") {
            self.install_line = line_with(&output, "install.sh");
            let hex = |line: &str| -> Vec<String> {
                let words = line.split(|c: char| !c.is_ascii_hexdigit());
                words.filter(|word| word.len() == 64).map(str::to_owned).collect()
            };
            let [authority, key] = hex(&self.install_line).try_into().expect("two SHA-256");
            self.printed = vec![("CA_SHA256", authority), ("KEY_SHA256", key)];
        }
        if command.contains("run start") {
            assert!(output.contains("greeting = \"Hello, world!\""), "{output}");
        }
    }

    fn on_host(&mut self, command: &str) {
        let command = self
            .printed
            .iter()
            .fold(command.to_owned(), |command, (name, value)| command.replace(name, value));
        let token = self.world.shell(self.server, "cat /root/prod.token");
        let is_install = command.contains("install.sh");
        if is_install {
            assert_eq!(command.trim(), self.install_line, "the page has what the server prints");
        }
        self.command("host", self.host, &command, &format!("{token}\n"));
        if is_install {
            self.load_image();
        }
    }

    /// A block is one command: a person copies it as a whole.
    fn command(&mut self, place: &str, machine: &str, command: &str, input: &str) -> String {
        *self.counts.entry(place.to_owned()).or_default() += 1;
        let script = format!("cd /root && {command}");
        let begun = Instant::now();
        // The script is the shell's argument, so that standard input is the command's.
        let mut stdin = tempfile::tempfile().expect("the temporary folder takes files");
        stdin.write_all(input.as_bytes()).expect("it takes bytes");
        stdin.rewind().expect("it is a file");
        let output = self
            .world
            .command(machine, &["sh", "-c", &script])
            .stdin(stdin)
            .output()
            .expect("scripts/machine starts");
        eprintln!("{:5.1} s on the {place}: {}", begun.elapsed().as_secs_f64(), command.trim());
        assert!(
            output.status.success(),
            "{command}\n{}\n{}\n{}",
            text(&output),
            self.world.journal_end(self.server),
            self.world.journal_end(self.host),
        );
        text(&output)
    }

    fn load_image(&self) {
        let create = blocks().into_iter().find(|block| block.text.contains("--image")).unwrap();
        let mut words = create.text.split_whitespace().skip_while(|word| *word != "--image");
        let name = words.nth(1).expect("an image").to_owned();
        let image = std::fs::read(kit().join("run-image.tar")).expect("the kit has an image");
        self.world.feed(self.host, &format!("{DOCKER} import - {name}"), &image);
    }
}

fn line_with(output: &str, part: &str) -> String {
    let line = output.lines().find(|line| line.contains(part));
    line.unwrap_or_else(|| panic!("no line with {part}: {output}")).trim().to_owned()
}

/// The bundle of the kit's repository.
fn bundle() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bundle.tar");
    let made = Command::new(kit().join("bin/scalr-agent-setup"))
        .args(["bundle", "--repository"])
        .arg(kit().join("repository"))
        .arg("--output")
        .arg(&file)
        .output()
        .expect("the setup program starts");
    assert!(made.status.success(), "{}", text(&made));
    std::fs::read(file).expect("the bundle was made")
}
