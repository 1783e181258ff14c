//! A provider's version, and the names of its files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Provider {
    /// The registry, `registry.terraform.io`.
    pub host: String,
    /// The owner's name there.
    pub namespace: String,
    /// Its own name, `aws`.
    pub name: String,
    /// Its version, `5.1.0`.
    pub version: String,
}

impl Provider {
    /// The version of the provider at `address` (`HOST/NAMESPACE/NAME`); none if
    /// it has something in it that could be more than a name: these become parts
    /// of paths and addresses.
    pub(super) fn new(address: &str, version: &str) -> Option<Self> {
        let mut parts = address.split('/');
        let (host, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = parts.next().is_none()
            && is_plain(host, ".-:")
            && is_plain(namespace, "-_")
            && is_plain(name, "-_")
            && is_plain(version, ".-+");
        fits.then(|| Self {
            host: host.to_ascii_lowercase(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
        })
    }

    /// Where its packages are in a mirror's folder: `HOST/NAMESPACE/NAME`.
    pub(super) fn address(&self) -> String {
        format!("{}/{}/{}", self.host, self.namespace, self.name)
    }

    /// The name of its package for `platform` (`linux_amd64`).
    pub(super) fn package(&self, platform: &str) -> String {
        format!("terraform-provider-{}_{}_{platform}.zip", self.name, self.version)
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address(), self.version)
    }
}

/// Whether `text` is of letters, digits and what is in `also`, and begins with
/// one of the first two.
fn is_plain(text: &str, also: &str) -> bool {
    text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_taken() {
        let provider =
            Provider::new("Registry.Terraform.io/hashicorp/null", "3.2.1-beta1").unwrap();
        assert_eq!(provider.to_string(), "registry.terraform.io/hashicorp/null 3.2.1-beta1");
        assert_eq!(
            provider.package("linux_amd64"),
            "terraform-provider-null_3.2.1-beta1_linux_amd64.zip"
        );
        assert!(Provider::new("localhost:8443/me/own", "1.0.0").is_some());
        for (address, version) in [
            ("hashicorp/null", "1.0.0"),
            ("h/n/t/x", "1.0.0"),
            ("h/../t", "1.0.0"),
            ("../n/t", "1.0.0"),
            ("h/n/t", "../../x"),
            ("h/n/t", "1.0.0/x"),
            ("h/n/t?a=b", "1.0.0"),
            ("user@h/n/t", "1.0.0"),
            ("h/n/t", ""),
            ("h//t", "1.0.0"),
        ] {
            assert_eq!(Provider::new(address, version), None, "{address} {version}");
        }
    }
}
