//! What tells Terraform where to look for providers: the part
//! `provider_installation` of its CLI configuration.

use url::Url;

use config::ProviderMirror;

/// The text of a CLI configuration with these folders in it, and what `mirror`
/// says of the rest.
pub(super) fn text(folders: &[String], mirror: &ProviderMirror) -> String {
    let mut text = String::from("provider_installation {\n");
    for folder in folders {
        text.push_str(&format!("  filesystem_mirror {{\n    path = \"{folder}\"\n  }}\n"));
    }
    match mirror {
        ProviderMirror::None => text.push_str("  direct {}\n"),
        ProviderMirror::Network(url) => {
            text.push_str(&format!(
                "  network_mirror {{\n    url = \"{}\"\n  }}\n",
                Url::as_str(url)
            ));
        }
        // All that there is.
        ProviderMirror::Folder(_) => {}
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_the_rest() {
        let folders = ["/scalr/providers/1/unpacked".to_owned()];
        let direct = "provider_installation {\n  filesystem_mirror {\n    \
                      path = \"/scalr/providers/1/unpacked\"\n  }\n  direct {}\n}\n";
        assert_eq!(text(&folders, &ProviderMirror::None), direct);
        let mirror = ProviderMirror::Network("https://mirror.example.com/p/".parse().unwrap());
        let network = "provider_installation {\n  network_mirror {\n    \
                       url = \"https://mirror.example.com/p/\"\n  }\n}\n";
        assert_eq!(text(&[], &mirror), network);
        let offline = text(&folders, &ProviderMirror::Folder("/srv/mirror".into()));
        assert!(!offline.contains("direct") && offline.contains("providers/1"), "{offline}");
    }
}
