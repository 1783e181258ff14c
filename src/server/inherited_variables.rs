//! Which of the variables that a workspace has and inherits its runs get.
//!
//! Of those with one key and category the narrowest scope wins, unless a wider one is final:
//! then the widest final one does. In a scope, one with a tag wins over one without; of several
//! with a tag, the one whose tag comes first by its name.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::store::variable::{Category, Variable};

/// The variables of a workspace with one key and category.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The one that runs get.
    pub winner: Variable,
    /// The others, the widest scope first.
    pub overridden: Vec<Variable>,
}

impl Inherited {
    /// Whether its value is masked in logs: also where another scope has a secret of that name.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.winner.sensitive || self.overridden.iter().any(|other| other.sensitive)
    }
}

/// Resolves what [`crate::store::variable::reaching`] finds, by key.
pub(crate) fn resolve(reaching: Vec<Variable>) -> Vec<Inherited> {
    let mut groups: BTreeMap<(String, Category), Vec<Variable>> = BTreeMap::new();
    for variable in reaching {
        groups.entry((variable.key.clone(), variable.category)).or_default().push(variable);
    }
    let resolve = |mut group: Vec<Variable>| {
        group.sort_by_key(|variable| (variable.rank(), Reverse(variable.tag.clone())));
        let last = group.len() - 1;
        let winner = group.iter().position(|variable| variable.is_final).unwrap_or(last);
        Inherited { winner: group.remove(winner), overridden: group }
    };
    groups.into_values().map(resolve).collect()
}

/// The final variable around `variable` that does not let it be, of those with its key.
pub(crate) fn barred_by<'a>(variable: &Variable, related: &'a [Variable]) -> Option<&'a Variable> {
    related.iter().find(|other| other.is_final && other.rank() < variable.rank())
}

/// Those within the scope of `variable` that it bars if it is final.
pub(crate) fn barred<'a>(
    variable: &Variable,
    related: &'a [Variable],
) -> impl Iterator<Item = &'a Variable> {
    let rank = variable.is_final.then(|| variable.rank());
    related.iter().filter(move |other| rank.is_some_and(|rank| other.rank() > rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `account environment! workspace`: a variable of each scope; `!` is final, `*` sensitive,
    /// and `account#prod` has a tag.
    fn variables(scopes: &str) -> Vec<Variable> {
        let variable = |word: &str| {
            let name = word.trim_end_matches(['!', '*']);
            let (scope, tag) = match name.split_once('#') {
                Some((scope, tag)) => (scope, Some(tag.to_owned())),
                None => (name, None),
            };
            Variable {
                id: format!("var-{name}"),
                account_id: "acc".to_owned(),
                environment_id: (scope != "account").then(|| "env".to_owned()),
                workspace_id: (scope == "workspace").then(|| "ws".to_owned()),
                tag_id: tag.clone(),
                tag,
                key: "size".to_owned(),
                value: Default::default(),
                category: Category::Terraform,
                hcl: false,
                sensitive: word.ends_with('*'),
                is_final: word.ends_with('!'),
                description: None,
                created_at: 0,
                updated_at: 0,
            }
        };
        scopes.split_whitespace().map(variable).collect()
    }

    #[test]
    fn the_narrowest_scope_wins_unless_a_wider_one_is_final() {
        for (scopes, winner, overridden) in [
            ("account", "account", ""),
            ("workspace environment account", "workspace", "account environment"),
            ("environment account", "environment", "account"),
            ("account! workspace", "account", "workspace"),
            ("environment! account workspace", "environment", "account workspace"),
            ("workspace environment! account!", "account", "environment workspace"),
            ("account workspace!", "workspace", "account"),
            ("account#prod account", "account#prod", "account"),
            ("account#prod environment", "environment", "account#prod"),
            (
                "environment#prod account#prod workspace",
                "workspace",
                "account#prod environment#prod",
            ),
            ("account#dev account account#prod", "account#dev", "account account#prod"),
            ("account! account#prod", "account", "account#prod"),
        ] {
            let resolved = resolve(variables(scopes));
            assert_eq!(resolved.len(), 1, "{scopes}");
            assert_eq!(resolved[0].winner.id, format!("var-{winner}"), "{scopes}");
            let others: Vec<_> = resolved[0]
                .overridden
                .iter()
                .map(|other| other.id.trim_start_matches("var-"))
                .collect();
            assert_eq!(others.join(" "), overridden, "{scopes}");
        }
    }

    #[test]
    fn a_value_is_sensitive_where_another_scope_has_a_secret_of_its_name() {
        for (scopes, is_sensitive) in [
            ("account workspace", false),
            ("account* workspace", true),
            ("account workspace*", true),
        ] {
            assert_eq!(resolve(variables(scopes))[0].is_sensitive(), is_sensitive, "{scopes}");
        }
    }

    #[test]
    fn variables_of_another_kind_or_name_do_not_compete() {
        let mut all = variables("account! workspace environment");
        all[1].category = Category::Shell;
        all[2].key = "other".to_owned();
        let resolved = resolve(all);
        assert_eq!(resolved.len(), 3);
        assert!(resolved.iter().all(|one| one.overridden.is_empty()));
    }
}
