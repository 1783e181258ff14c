//! Who shows a secret on a command line, if only for a moment.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fleet::Fleet;

/// How long it does not look: less than any program takes that a person would see in `ps`, and
/// enough to leave the processors to others.
const PAUSE: Duration = Duration::from_millis(3);

/// Is on a command line in the end, to show that all the others would have been seen.
const CONTROL: &str = "no-secret-but-watched-for";

/// Looks for secrets on the machine's command lines, over and over.
pub(crate) struct Watch<'a> {
    fleet: &'a Fleet,
    is_over: Arc<AtomicBool>,
    looking: Option<JoinHandle<BTreeSet<String>>>,
}

impl<'a> Watch<'a> {
    /// Begins to look for the lines of the machine's file `secrets`.
    pub(crate) fn start(fleet: &'a Fleet, secrets: &str) -> Self {
        let secrets = fleet.shell(&format!("cat {secrets}"));
        let mut secrets: Vec<String> = secrets.lines().map(str::to_owned).collect();
        assert!(!secrets.is_empty() && !secrets.contains(&String::new()), "{secrets:?}");
        secrets.push(CONTROL.to_owned());
        let processes = fleet.world.root(&fleet.machine).join("proc");
        let is_over = Arc::new(AtomicBool::new(false));
        let looking = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let mut seen = BTreeSet::new();
                while !is_over.load(Ordering::Relaxed) {
                    look(&processes, &secrets, &mut seen);
                    std::thread::sleep(PAUSE);
                }
                seen
            }
        });
        Self { fleet, is_over, looking: Some(looking) }
    }

    /// The command lines on which one was seen.
    pub(crate) fn end(mut self) -> String {
        self.fleet.shell(&format!("sleep 0.2; : {CONTROL}"));
        self.is_over.store(true, Ordering::Relaxed);
        let looking = self.looking.take().expect("it ends once");
        let seen = looking.join().expect("it only reads");
        let (control, secrets): (Vec<_>, Vec<_>) =
            seen.into_iter().partition(|line| line.contains(CONTROL));
        assert!(!control.is_empty(), "nothing was seen");
        secrets.join("\n")
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Looks at each process once. One that ends meanwhile has no command line any more.
fn look(processes: &Path, secrets: &[String], seen: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(processes) else { return };
    for entry in entries.flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if secrets.iter().any(|secret| line.contains(secret.as_str())) {
            seen.insert(line);
        }
    }
}
