//! The flags that a run's options are for `terraform plan`.

use protocol::{Kind, Refresh, RunOptions, Task};

/// What a task's entry point gives `terraform plan`, each flag a word of its own. The
/// addresses are checked: none has a form that is another flag.
pub(super) fn plan_flags(task: &Task) -> Vec<String> {
    if task.kind == Kind::Apply {
        return Vec::new();
    }
    let RunOptions { refresh, targets, replace } = &task.options;
    let refresh = match refresh {
        Refresh::First => None,
        Refresh::Only => Some("-refresh-only".to_owned()),
        Refresh::Skip => Some("-refresh=false".to_owned()),
    };
    let targets = targets.iter().map(|address| format!("-target={address}"));
    let replace = replace.iter().map(|address| format!("-replace={address}"));
    refresh.into_iter().chain(targets).chain(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::tests::claimed;

    #[test]
    fn each_option_is_a_flag_of_the_plan_and_of_no_apply() {
        for (refresh, targets, replace, flags) in [
            (Refresh::First, &[][..], &[][..], &[][..]),
            (Refresh::Only, &[], &[], &["-refresh-only"]),
            (Refresh::Skip, &[], &[], &["-refresh=false"]),
            (
                Refresh::Skip,
                &["module.a", r#"a.b["c d"]"#],
                &["a.b[0]"],
                &["-refresh=false", "-target=module.a", r#"-target=a.b["c d"]"#, "-replace=a.b[0]"],
            ),
        ] {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            let options = RunOptions { refresh, targets: owned(targets), replace: owned(replace) };
            let mut task = Task { kind: Kind::Plan, options, ..claimed().task };
            assert_eq!(plan_flags(&task), flags);
            task.kind = Kind::Apply;
            assert!(plan_flags(&task).is_empty());
        }
    }
}
