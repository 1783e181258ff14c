//! iptables: one chain of our own in a table.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::command::CommandExt as _;
use cli::Failure;

/// The addresses that rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A chain of our own that is jumped to from a built-in one.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// Of which addresses.
    pub family: Family,
    /// `filter` or `nat`.
    pub table: &'static str,
    /// The built-in chain whose first rule jumps to it.
    pub from: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The name of the chain that takes its place, until it does.
    pub spare: &'static str,
}

/// How a chain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has its rules, and is the first that is jumped to.
    Up,
    /// It has its rules, and this rule is asked before them.
    Behind(String),
    /// It lacks a rule, or is not jumped to.
    Missing,
}

impl Chain {
    /// Makes the chain hold just `rules`, in their order and as `iptables -S`
    /// prints them, and makes it the first that is jumped to. What is so already
    /// is not touched, and what is not is replaced as a whole: no packet meets a part of the
    /// rules. Returns whether anything was changed.
    ///
    /// # Errors
    /// iptables is missing or refuses a rule.
    pub fn put_up(self, rules: &[String]) -> Result<bool> {
        self.take_spares_place()?;
        let differs = match self.rules_of(self.name) {
            Some(found) => !self.additions(rules).eq(found),
            None => true,
        };
        if differs {
            let spare = self.spare();
            spare.fill(rules)?;
            spare.jump_first()?;
            self.take_spares_place()?;
        }
        Ok(self.jump_first()? | differs)
    }

    /// How the chain is, compared to how [`Chain::put_up`] leaves it with these rules. Only
    /// root may ask.
    pub fn state(self, rules: &[String]) -> State {
        let is_whole =
            self.rules_of(self.name).is_some_and(|found| self.additions(rules).eq(found));
        let callers = self.rules_of(self.from).unwrap_or_default();
        match callers.iter().position(|rule| *rule == self.jump()) {
            Some(0) if is_whole => State::Up,
            Some(_) if is_whole => {
                State::Behind(format!("{} -t {} {}", self.family.program(), self.table, callers[0]))
            }
            _ => State::Missing,
        }
    }

    /// Whether the chain or its spare one is there, whatever it holds. Only root may ask.
    pub fn exists(self) -> bool {
        [self, self.spare()].iter().any(|chain| chain.rules_of(chain.name).is_some())
    }

    /// Removes the chain and the jump to it, also its spare one.
    ///
    /// # Errors
    /// iptables is missing or refuses.
    pub fn take_down(self) -> Result<()> {
        self.spare().remove()?;
        self.remove()
    }

    fn spare(self) -> Self {
        Self { name: self.spare, ..self }
    }

    fn additions(self, rules: &[String]) -> impl Iterator<Item = String> {
        rules.iter().map(move |rule| format!("-A {} {rule}", self.name))
    }

    /// Makes the chain, with these rules.
    fn fill(self, rules: &[String]) -> Result<()> {
        self.call(&["-N", self.name])?;
        for rule in self.additions(rules) {
            self.call(&rule.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Has the spare chain become the chain. It is jumped to only when it is whole: an
    /// interruption may have left a part of one.
    fn take_spares_place(self) -> Result<()> {
        let spare = self.spare();
        if !spare.is_jumped_to() {
            return spare.remove();
        }
        self.remove()?;
        self.call(&["-E", spare.name, self.name])
    }

    fn remove(self) -> Result<()> {
        while self.is_jumped_to() {
            self.call(&["-D", self.from, "-j", self.name])?;
        }
        if self.rules_of(self.name).is_some() {
            self.call(&["-F", self.name])?;
            self.call(&["-X", self.name])?;
        }
        Ok(())
    }

    /// Others insert rules before ours, so it is looked at each time.
    fn jump_first(self) -> Result<bool> {
        let jump = self.jump();
        let rules = self.rules_of(self.from).unwrap_or_default();
        if rules.first() == Some(&jump) {
            return Ok(false);
        }
        self.call(&["-I", self.from, "1", "-j", self.name])?;
        // The old jump goes after the new one is there: no packet slips through.
        for at in
            rules.iter().enumerate().filter(|(_, rule)| **rule == jump).map(|(at, _)| at).rev()
        {
            // Counted from 1, and moved down by the new one.
            self.call(&["-D", self.from, &(at + 2).to_string()])?;
        }
        Ok(true)
    }

    fn is_jumped_to(self) -> bool {
        self.rules_of(self.from).unwrap_or_default().contains(&self.jump())
    }

    fn jump(self) -> String {
        format!("-A {} -j {}", self.from, self.name)
    }

    /// A chain's rules; `None` if there is no such chain.
    fn rules_of(self, chain: &str) -> Option<Vec<String>> {
        let text = self.command(&["-S", chain]).read().ok()?;
        Some(parse_rules(&text))
    }

    fn call(self, arguments: &[&str]) -> Result<()> {
        Ok(self.command(arguments).run()?)
    }

    /// `-w` waits for another program's change to end; 1.4.20 is the first that
    /// knows it, and every host that we support has it.
    fn command(self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.family.program());
        command.args(["-w", "-t", self.table]).args(arguments);
        command
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -t {} {}", self.family.program(), self.table, self.name)
    }
}

impl Family {
    /// Whether its program is installed and works here: the kernel may lack IPv6.
    pub fn is_usable(self) -> bool {
        Command::new(self.program()).args(["-w", "-S", "INPUT"]).read().is_ok()
    }

    fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

/// Where it is installed; `None` if it is not.
pub fn find() -> Option<PathBuf> {
    which::which("iptables").ok()
}

/// Refuses to go on without iptables.
///
/// # Errors
/// It is not installed, or can't be used here.
pub fn require() -> Result<()> {
    if find().is_none() {
        return Err(Failure::NotInstalled.because("iptables is not installed; install it"));
    }
    match Command::new("iptables").args(["-w", "-S", "FORWARD"]).read() {
        Ok(_) => Ok(()),
        Err(error) => bail!("cannot use iptables on this host: {error}"),
    }
}

/// The `-A` lines.
fn parse_rules(text: &str) -> Vec<String> {
    let rule = |line: &str| line.starts_with("-A ").then(|| line.trim_end().to_owned());
    text.lines().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_as_iptables_prints_them() {
        // iptables 1.8.9 (nf_tables).
        let text = "-N SCALR-AGENT\n-A SCALR-AGENT -s 10.213.64.0/20 -j ACCEPT\n";
        assert_eq!(parse_rules(text), ["-A SCALR-AGENT -s 10.213.64.0/20 -j ACCEPT"]);
    }
}
