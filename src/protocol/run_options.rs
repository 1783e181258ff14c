//! What a run asks of Terraform beside its operation.

use serde::{Deserialize, Serialize};

use crate::Operation;

/// How many resources a run names at most, for each purpose.
pub const MAX_ADDRESSES: usize = 200;

/// The longest address of a resource, in bytes.
pub const MAX_ADDRESS: usize = 1_024;

/// What a run asks of Terraform beside its operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// What happens to the state before the plan.
    #[serde(default)]
    pub refresh: Refresh,
    /// The resources and modules that the plan is limited to; empty: all.
    #[serde(default)]
    pub targets: Vec<String>,
    /// The resources that are replaced even if nothing asks for it.
    #[serde(default)]
    pub replace: Vec<String>,
}

/// Whether the state is compared with the real resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// Before the plan.
    #[default]
    First,
    /// And nothing else is planned: only the state is changed.
    Only,
    /// Never: the plan relies on the state.
    Skip,
}

/// An option that a run cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadOption {
    /// Which.
    pub option: RunOption,
    /// Why, in a sentence.
    pub why: String,
}

/// An option of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOption {
    /// [`RunOptions::refresh`].
    Refresh,
    /// [`RunOptions::targets`].
    Targets,
    /// [`RunOptions::replace`].
    Replace,
}

impl RunOption {
    /// The field's name.
    pub fn name(self) -> &'static str {
        match self {
            RunOption::Refresh => "refresh",
            RunOption::Targets => "targets",
            RunOption::Replace => "replace",
        }
    }
}

impl RunOptions {
    /// Checks the options of a run with this operation.
    ///
    /// # Errors
    /// The first option that Terraform would refuse, or that is none.
    pub fn check(&self, operation: Operation) -> Result<(), BadOption> {
        let Self { refresh, targets, replace } = self;
        let bad = |option, why: &str| Err(BadOption { option, why: why.to_owned() });
        let destroys = operation == Operation::Destroy;
        if *refresh == Refresh::Only && destroys {
            return bad(RunOption::Refresh, "A run that destroys cannot be refresh-only.");
        }
        if !replace.is_empty() && (destroys || *refresh == Refresh::Only) {
            return bad(
                RunOption::Replace,
                "Only a run that neither destroys nor is refresh-only can replace resources.",
            );
        }
        check_all(RunOption::Targets, targets, |_| true)?;
        check_all(RunOption::Replace, replace, |named| named == Named::Managed)
    }
}

fn check_all(
    option: RunOption,
    addresses: &[String],
    is_fit: impl Fn(Named) -> bool,
) -> Result<(), BadOption> {
    if addresses.len() > MAX_ADDRESSES {
        let why = format!("A run takes at most {MAX_ADDRESSES} addresses here.");
        return Err(BadOption { option, why });
    }
    let is_unfit = |text: &&String| text.len() > MAX_ADDRESS || !parse(text).is_some_and(&is_fit);
    let Some(unfit) = addresses.iter().find(is_unfit) else { return Ok(()) };
    let what = match option {
        RunOption::Replace => "a managed resource",
        RunOption::Refresh | RunOption::Targets => "a resource or a module",
    };
    // Quoted as Rust does: it may have control characters.
    let shown: String = unfit.chars().take(80).collect();
    let why = format!(
        "{shown:?} is not the address of {what} with at most {MAX_ADDRESS} bytes, for example \
         module.network.aws_subnet.main[0]."
    );
    Err(BadOption { option, why })
}

/// What an address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Module,
    Managed,
    /// A data source or an ephemeral resource.
    Read,
}

/// Reads `module.NAME[KEY].….TYPE.NAME[KEY]`. No address begins with a dash, so that none is
/// a flag.
fn parse(address: &str) -> Option<Named> {
    let (first, rest) = name(address)?;
    let rest = rest.strip_prefix('.')?;
    let (named, rest) = match first {
        "module" => (Named::Module, rest),
        "data" | "ephemeral" => (Named::Read, name(rest)?.1.strip_prefix('.')?),
        _ => (Named::Managed, rest),
    };
    let rest = after_key(name(rest)?.1)?;
    match rest.strip_prefix('.') {
        None => rest.is_empty().then_some(named),
        Some(rest) if named == Named::Module => parse(rest),
        Some(_) => None,
    }
}

/// The name that a text begins with, and the rest.
fn name(text: &str) -> Option<(&str, &str)> {
    let is_first = |c: char| c.is_alphabetic() || c == '_';
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-')));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    name.starts_with(is_first).then_some((name, rest))
}

/// What follows `[0]` or `["key"]`, if the text begins with one.
fn after_key(text: &str) -> Option<&str> {
    let Some(inside) = text.strip_prefix('[') else { return Some(text) };
    let Some(quoted) = inside.strip_prefix('"') else {
        let (index, rest) = inside.split_once(']')?;
        let is_index = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        return is_index.then_some(rest);
    };
    let mut is_escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if c.is_control() => return None,
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return quoted[at + 1..].strip_prefix(']'),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_a_module_or_a_resource_and_never_a_flag() {
        for (address, named) in [
            ("aws_subnet.main", Some(Named::Managed)),
            ("aws_subnet.main[0]", Some(Named::Managed)),
            (r#"aws_subnet.main["a b].c\"d"]"#, Some(Named::Managed)),
            ("module.network", Some(Named::Module)),
            ("module.network[1]", Some(Named::Module)),
            (r#"module.a["x"].module.b.aws_subnet.main"#, Some(Named::Managed)),
            ("data.aws_ami.base", Some(Named::Read)),
            ("module.a.data.aws_ami.base[0]", Some(Named::Read)),
            ("ephemeral.random_password.one", Some(Named::Read)),
            ("größe_a.straße", Some(Named::Managed)),
            ("", None),
            ("-destroy", None),
            ("--target=a.b", None),
            ("aws_subnet", None),
            ("aws_subnet.-x", None),
            ("aws_subnet.main ", None),
            ("aws_subnet.main\n-destroy", None),
            ("aws_subnet.main[]", None),
            ("aws_subnet.main[-1]", None),
            ("aws_subnet.main[0", None),
            (r#"aws_subnet.main["a"#, None),
            (r#"aws_subnet.main["a\"]"#, None),
            ("aws_subnet.main[\"a\n\"]", None),
            ("aws_subnet.main.more", None),
            ("aws_subnet.main[0][1]", None),
            ("data.aws_ami", None),
            ("module.a.aws_subnet", None),
            ("a.b;id", None),
            ("a.$(id)", None),
        ] {
            assert_eq!(parse(address), named, "{address:?}");
        }
    }

    #[test]
    fn options_that_terraform_refuses_together_are_refused_by_name() {
        use Operation::{Apply, Destroy};
        use RunOption::{Refresh as R, Replace, Targets};
        let long = format!("a.{}", "b".repeat(MAX_ADDRESS));
        let many = vec!["a.b"; MAX_ADDRESSES + 1];
        for (refresh, targets, replace, operation, refused) in [
            (Refresh::First, &[][..], &[][..], Destroy, None),
            (Refresh::Skip, &["a.b"], &["a.b"], Apply, None),
            (Refresh::Only, &["module.a"], &[], Apply, None),
            (Refresh::Skip, &["a.b"], &[], Destroy, None),
            (Refresh::Only, &[], &[], Destroy, Some(R)),
            (Refresh::First, &[], &["a.b"], Destroy, Some(Replace)),
            (Refresh::Only, &[], &["a.b"], Apply, Some(Replace)),
            (Refresh::First, &["-destroy"], &[], Apply, Some(Targets)),
            (Refresh::First, &[long.as_str()], &[], Apply, Some(Targets)),
            (Refresh::First, &many, &[], Apply, Some(Targets)),
            (Refresh::First, &[], &["a.b\n"], Apply, Some(Replace)),
            (Refresh::First, &[], &["data.a.b"], Apply, Some(Replace)),
            (Refresh::First, &[], &["module.a"], Apply, Some(Replace)),
        ] {
            let owned = |addresses: &[&str]| addresses.iter().map(|&one| one.to_owned()).collect();
            let options = RunOptions { refresh, targets: owned(targets), replace: owned(replace) };
            let bad = options.check(operation).err();
            assert_eq!(bad.map(|bad| bad.option), refused, "{options:?} {operation:?}");
        }
    }
}
