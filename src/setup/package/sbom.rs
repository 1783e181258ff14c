//! The bill of materials: what is in a package, in `CycloneDX`'s format.
//! <https://cyclonedx.org/docs/1.5/json/>

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::bundled_engine::Record;
use super::crates::Crate;

/// The document for a package. It has no serial number and the sources' date: the
/// same sources give the same document.
///
/// # Errors
/// `source_date`, in seconds, is no date.
pub(super) fn document(
    package: &str,
    version: &str,
    crates: &[Crate],
    engine: Option<&Record>,
    source_date: i64,
) -> Result<String> {
    let mut components: Vec<Value> = crates.iter().map(library).collect();
    components.extend(engine.map(application));
    let parts: Vec<&Value> = components.iter().map(|component| &component["bom-ref"]).collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": Timestamp::from_second(source_date)?.to_string(),
            "tools": { "components": [{
                "type": "application",
                "name": "scalr-agent-setup",
                "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": {
                "type": "application",
                "bom-ref": package,
                "name": package,
                "version": version,
                "licenses": [{ "license": { "id": "Apache-2.0" } }],
            },
        },
        "components": components,
        "dependencies": [{ "ref": package, "dependsOn": parts }],
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn library(one: &Crate) -> Value {
    let url = format!("pkg:cargo/{}@{}", one.name, one.version.replace('+', "%2B"));
    let mut component = json!({
        "type": "library",
        "bom-ref": url,
        "name": one.name,
        "version": one.version,
        "purl": url,
        "licenses": [{ "expression": one.license }],
    });
    if let Some(checksum) = &one.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn application(engine: &Record) -> Value {
    let mut component = json!({
        "type": "application",
        "bom-ref": "engine",
        "name": engine.source,
        "hashes": [{ "alg": "SHA-256", "content": engine.sha256 }],
    });
    if let Some((name, version)) = engine.source.split_once(' ') {
        component["name"] = name.into();
        component["version"] = version.into();
    }
    if let Some(license) = &engine.license {
        component["licenses"] = json!([{ "expression": license }]);
    }
    component
}
