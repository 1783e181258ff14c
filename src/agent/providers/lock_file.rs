//! `.terraform.lock.hcl`: which versions a configuration uses, and by which
//! hashes Terraform knows them again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use hcl_edit::expr::Expression;
use hcl_edit::structure::Body;

use super::provider::Provider;

/// The largest one that is read, in bytes. A run can write what it likes.
const LARGEST: usize = 1024 * 1024;

/// How many providers of one are looked at: no configuration uses as many.
const MOST: usize = 64;

/// The providers in a lock file, each with its hashes.
pub(super) type Locked = BTreeMap<Provider, Vec<String>>;

/// Reads the lock file at `path`.
///
/// # Errors
/// As [`read`], or the file can't be read.
pub(super) fn open(path: &Path) -> Result<Locked> {
    let cannot = || format!("cannot read {}", path.display());
    let mut text = Vec::new();
    let file = File::open(path).with_context(cannot)?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut text).with_context(cannot)?;
    read(&text)
}

/// Reads a lock file; what is in it that no provider is called is left out.
///
/// # Errors
/// It is too large, or is not of the form that Terraform writes.
pub(super) fn read(text: &[u8]) -> Result<Locked> {
    if text.len() > LARGEST {
        bail!("the lock file has more than {LARGEST} bytes");
    }
    let text = std::str::from_utf8(text).context("the lock file is not UTF-8")?;
    let body: Body = text.parse().context("the lock file is not HCL")?;
    Ok(body
        .get_blocks("provider")
        .filter_map(|block| {
            let value = |name| block.body.get_attribute(name).map(|attribute| &attribute.value);
            let version = value("version")?.as_str()?;
            let provider = Provider::new(block.labels.first()?.as_str(), version)?;
            let hashes = value("hashes").and_then(Expression::as_array);
            let hashes = hashes.into_iter().flat_map(|hashes| hashes.iter());
            Some((provider, hashes.filter_map(Expression::as_str).map(str::to_owned).collect()))
        })
        .take(MOST)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terraform_writes_is_read() {
        let text = br#"
# This file is maintained automatically by "terraform init".
# Manual edits may be lost in future updates.

provider "registry.terraform.io/hashicorp/null" {
  version     = "3.2.1"
  constraints = "~> 3.2"
  hashes = [
    "h1:FbGfc+muBsC17Ohy5g806iuI1hQc4SIexpYCrQHQd8w=",
    "zh:58ed64389620cc7b82f01332e27723856422820cfd302e304b5f6c3436fb9840",
  ]
}

provider "registry.terraform.io/hashicorp/local" {
  version = "2.4.0"
}

provider "../../etc" {
  version = "1.0.0"
}
"#;
        let locked = read(text).unwrap();
        let found: Vec<_> =
            locked.iter().map(|(provider, hashes)| (provider.to_string(), hashes.len())).collect();
        assert_eq!(
            found,
            [
                ("registry.terraform.io/hashicorp/local 2.4.0".to_owned(), 0),
                ("registry.terraform.io/hashicorp/null 3.2.1".to_owned(), 2),
            ]
        );
    }

    #[test]
    fn something_else_is_refused() {
        assert!(read(b"provider \"a/b/c\" {").is_err());
        assert!(read(&vec![b'#'; LARGEST + 1]).is_err());
        assert!(read(b"\xff").is_err());
        let many: String = (0..100)
            .map(|n| format!("provider \"h/n/t{n}\" {{\nversion = \"1.0.0\"\n}}\n"))
            .collect();
        assert_eq!(read(many.as_bytes()).unwrap().len(), MOST);
    }

    /// A parser that recurses as deep as its input says would end the agent.
    #[test]
    fn deep_nesting_does_no_harm() {
        for open in ["[", "(", "{a=", "!", "\"${", "f(", "a?", "[for a in "] {
            assert!(read(format!("a = {}", open.repeat(100_000)).as_bytes()).is_err(), "{open}");
        }
        assert!(read("a {\n".repeat(100_000).as_bytes()).is_err());
    }
}
