//! The licences in the packages: ours, the crates' and the engine's.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::bundled_engine::Record;
use super::crates::Crate;

/// Ours, which is the Apache License 2.0 as it is.
const APACHE: &str = include_str!("../../../LICENSE");

/// The MIT licence after its copyright line.
/// <https://spdx.org/licenses/MIT.html>
const MIT: &str = include_str!("mit.txt");

/// Debian's machine-readable copyright file.
/// <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>
pub(super) fn debian_copyright(package: &str, engine: Option<&Record>) -> String {
    let mut text = format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: {package}\n\
         Comment: The programs contain libraries of others, under licences of their own:\n \
         /usr/share/doc/{package}/third-party.txt.gz names each and has its licence.\n\
         \n\
         Files: *\n\
         Copyright: 2026 The authors of scalr-agent\n\
         License: Apache-2.0\n"
    );
    if let Some(engine) = engine {
        let license = engine.license.as_deref().unwrap_or("unknown");
        write!(
            text,
            "\n\
             Files: usr/lib/scalr-agent/engine/*\n\
             Copyright: The authors of {}\n\
             License: {license}\n",
            engine.source
        )
        .expect("a String takes everything");
        if license != "Apache-2.0" {
            write!(text, "\nLicense: {license}\n What the archive's maker says of it.\n")
                .expect("a String takes everything");
        }
    }
    text + "\n\
            License: Apache-2.0\n \
            On Debian systems, the full text of the Apache License 2.0 is in\n \
            /usr/share/common-licenses/Apache-2.0.\n"
}

/// Each crate with its licence, then each text once, with who uses it; last, the
/// engine.
///
/// # Errors
/// The text of a crate's licence is not known.
pub(super) fn third_party(
    package: &str,
    crates: &[Crate],
    engine: Option<&Record>,
) -> Result<String> {
    let mut list = format!("{package} contains these libraries, each under its licence:\n\n");
    let mut texts: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for one in crates {
        let name = format!("{} {}", one.name, one.version);
        write!(list, "  {name}: {}", one.license)?;
        if !one.authors.is_empty() {
            write!(list, "; by {}", one.authors.join(", "))?;
        }
        list.push('\n');
        let mut own = one.license_texts()?;
        if own.is_empty() {
            let allows = |license| one.license.split(' ').any(|word| word == license);
            own.push(if allows("Apache-2.0") {
                APACHE.to_owned()
            } else if allows("MIT") && !one.authors.is_empty() {
                format!("Copyright (c) {}\n\n{MIT}", one.authors.join(", "))
            } else {
                bail!("{name} is under {} and has no text of it", one.license)
            });
        }
        for text in own {
            // Indented and wrapped in many ways, they are the same.
            let key = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let (_, names) = texts.entry(key).or_insert_with(|| (text, Vec::new()));
            if names.last() != Some(&name) {
                names.push(name.clone());
            }
        }
    }
    if let Some(engine) = engine {
        let license = engine.license.as_deref().unwrap_or("unknown");
        write!(
            list,
            "\nIn /usr/lib/scalr-agent/engine is {} (SHA-256 of its archive: {}), under this \
             licence:\n  {license}\n",
            engine.source, engine.sha256
        )?;
    }
    // By who uses them: as sorted as the list above.
    let mut texts: Vec<(String, Vec<String>)> = texts.into_values().collect();
    texts.sort_by(|one, other| one.1.cmp(&other.1).then_with(|| one.0.cmp(&other.0)));
    for (text, names) in texts {
        write!(list, "\n{}\nOf {}:\n\n{}\n", "=".repeat(78), names.join(", "), text.trim_end())?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::super::checkout::Checkout;
    use super::super::crates;
    use super::super::product::Product;
    use super::super::symbols::Processor;
    use super::*;

    #[test]
    fn every_crate_has_the_text_of_its_licence() {
        let checkout = Checkout::find().unwrap();
        for product in [Product::Agent, Product::Server] {
            let crates = crates::of(&checkout, product, Processor::X86_64).unwrap();
            let text = third_party(product.name(), &crates, None).unwrap();
            assert!(text.contains("Permission is hereby granted, free of charge"));
            for one in &crates {
                let name = format!("{} {}", one.name, one.version);
                // In the list, and above a text.
                assert!(text.matches(&name).count() >= 2, "{name} has no text");
            }
        }
    }
}
