//! The settings as people are shown them: every one, with its value and where
//! that comes from.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::proxy::masked;
use super::{DefaultValue, Settings, Source, sources};
use protocol::Secret;

/// A setting as people are shown it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// Its name in the file.
    pub name: &'static str,
    /// The token is masked; null: not set, and there is no default.
    pub value: Value,
    /// Where the value comes from.
    pub source: Source,
}

/// Every setting, in the order of [`super::KEYS`]: what `file` and the variables
/// say, else the default. No secret is among them.
///
/// # Errors
/// As [`Settings::load`].
pub fn listed(
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)> + Clone,
) -> Result<Vec<Listed>> {
    let settings = Settings::load(file, environment.clone())?;
    let set = serde_json::to_value(shown(settings))?;
    let listed = sources(file, environment)?.into_iter().map(|(key, source)| {
        let value = set.get(key.name).cloned().or_else(|| key.default.map(value_of));
        Listed { name: key.name, value: value.unwrap_or_default(), source }
    });
    Ok(listed.collect())
}

/// The settings without their secrets.
fn shown(mut settings: Settings) -> Settings {
    settings.token = settings.token.map(|_| Secret::new("***"));
    for url in [&mut settings.url, &mut settings.telemetry_url] {
        *url = url.as_ref().and_then(|url| masked(url.as_str()).parse().ok());
    }
    settings.provider_mirror = settings.provider_mirror.as_deref().map(masked);
    settings
}

fn value_of(default: DefaultValue) -> Value {
    match default {
        DefaultValue::Text(text) => text.into(),
        DefaultValue::Integer(number) => number.into(),
        DefaultValue::Number(number) => number.into(),
        DefaultValue::Flag(flag) => flag.into(),
    }
}

impl Listed {
    /// The value as a person reads it.
    pub fn text(&self) -> String {
        match &self.value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let settings = Settings {
            url: Some("https://me:hunter2@pools.example.com".parse().unwrap()),
            provider_mirror: Some("https://me:hunter2@mirror.example.com".to_owned()),
            token: Some(Secret::new("hunter2")),
            telemetry_url: Some("https://me:hunter2@collector".parse().unwrap()),
            ..Settings::default()
        };
        let text = serde_json::to_string(&shown(settings)).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn each_setting_with_a_default_shows_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let listed = listed(file.path(), Vec::new()).unwrap();
        let without: Vec<&str> =
            listed.iter().filter(|one| one.value.is_null()).map(|one| one.name).collect();
        assert_eq!(
            without,
            [
                "url",
                "token",
                "agent_name",
                "user",
                "writable_root",
                "ca_cert",
                "hooks_dir",
                "provider_registries",
                "provider_mirror",
                "registry_auth",
                "telemetry_url",
                "telemetry_headers"
            ]
        );
    }
}
