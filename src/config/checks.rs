//! What a setting's value has to be. Each check gives, for a person, what is
//! wrong with it.

use std::net::IpAddr;
use std::path::Path;

use url::{Host, Url};

use super::ProviderMirror;
use super::layout::{CA_CERT, ENGINE_SOCKET};
use cli::untrusted_file;
use protocol::Secret;

/// The longest path that a Unix socket's address holds (`sun_path` in
/// `unix(7)`, less the final zero).
const SOCKET_PATH_BYTES: usize = 107;

/// The largest file of authorities, in bytes: a whole system's bundle has a quarter.
pub const MAX_CERTIFICATES: u64 = 1024 * 1024;

/// Checks a setting, if it is set.
pub(crate) fn each<T>(
    setting: &Option<T>,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<(), String> {
    setting.as_ref().map_or(Ok(()), check)
}

/// The server's address as it is given, before [`url()`] checks it. Without a scheme, its name
/// would be taken for one.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(Url::has_host);
    url.ok_or_else(|| "should look like https://pools.example.com:8443".to_owned())
}

/// Checks the server's address.
///
/// # Errors
/// What it should be instead.
pub fn url(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(url) => {}
        "http" => return Err("has to be https://: the token would go over it in the clear".into()),
        _ => return Err("should look like https://pools.example.com".into()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("should have no user and password in it".into());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("should be the server's address alone, with nothing after the host".into());
    }
    Ok(())
}

/// Whether nobody on the network can read or change what comes from `url`.
pub fn is_encrypted_or_local(url: &Url) -> bool {
    url.scheme() == "https" || url.scheme() == "http" && is_loopback(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

pub(crate) fn collector(url: &Url, has_headers: bool) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if !has_headers || is_loopback(url) => {}
        "http" => {
            return Err(
                "has to be https://: telemetry_headers would go over it in the clear".into()
            );
        }
        _ => return Err("should look like http://collector:4318".into()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("should have no user and password in it: telemetry_headers is for them".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("should have nothing after the path".into());
    }
    Ok(())
}

pub(crate) fn token(token: &Secret) -> Result<(), String> {
    crate::token::fault(token.expose()).map_or(Ok(()), |fault| Err(fault.to_owned()))
}

pub(crate) fn printable(text: &str, longest: usize) -> Result<(), String> {
    if text.trim().is_empty() || text.len() > longest || text.chars().any(char::is_control) {
        return Err(format!("should be 1 to {longest} printable characters"));
    }
    Ok(())
}

pub(crate) fn within<T: PartialOrd + std::fmt::Display>(
    n: T,
    least: T,
    most: T,
) -> Result<(), String> {
    if n < least || n > most || n.partial_cmp(&n).is_none() {
        return Err(format!("should be between {least} and {most}, not {n}"));
    }
    Ok(())
}

pub(crate) fn user(user: &str) -> Result<(), String> {
    let name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    let mut parts = user.splitn(2, ':');
    if !parts.all(name) {
        return Err(format!("should be root, a name or UID[:GID], not `{user}`"));
    }
    Ok(())
}

/// Checks that a text can name an image, `[HOST[:PORT]/]NAME[/NAME…][:TAG][@DIGEST]`, as the
/// engine has them (github.com/distribution/reference); `{version}` stands for a version.
///
/// # Errors
/// It can't, as the end of a sentence.
pub fn image(image: &str) -> Result<(), String> {
    let text = image.replace("{version}", "1.9.8");
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (&*text, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let (host, name) = match name.split_once('/') {
        Some((host, name))
            if host.contains(['.', ':', '[']) || host == "localhost" || has_capitals(host) =>
        {
            (Some(host), name)
        }
        _ => (None, name),
    };
    let is_ok = name.len() <= 255
        && name.split('/').all(is_part_of_name)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
        && host.is_none_or(is_host);
    is_ok.then_some(()).ok_or_else(|| {
        let said = image.escape_debug();
        format!("should be an image's name such as hashicorp/terraform:1.9, not `{said}`")
    })
}

fn has_capitals(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_uppercase())
}

fn is_part_of_name(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = part.split(is_plain).filter(|separator| !separator.is_empty());
    part.starts_with(is_plain)
        && part.ends_with(is_plain)
        && separators.all(|text| [".", "_", "__"].contains(&text) || text.chars().all(|c| c == '-'))
}

fn is_host(host: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let is_label = |label: &str| {
        label.starts_with(is_edge)
            && label.ends_with(is_edge)
            && label.chars().all(|c| is_edge(c) || c == '-')
    };
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    (host.starts_with('[') || name.split('.').all(is_label)) && is_host_of_url(host)
}

/// A host as it stands in a URL, and a port. The scheme has no port of its own, which would be
/// left out, and no rules about names.
fn is_host_of_url(host: &str) -> bool {
    !host.contains('%')
        && Url::parse(&format!("registry://{host}/")).is_ok_and(|url| {
            let found = &url[url::Position::BeforeHost..url::Position::BeforePath];
            url.port() != Some(0) && found.eq_ignore_ascii_case(host)
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || ".-".contains(c))
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let digits = [("sha256", 64), ("sha384", 96), ("sha512", 128)];
        digits.contains(&(algorithm, hex.len())) && hex.chars().all(is_hex)
    })
}

pub(crate) fn certificates(file: &Path) -> Result<(), String> {
    absolute(file)?;
    if file == Path::new(CA_CERT) {
        // The setup program checks it and writes it with the settings, maybe in another tree.
        return Ok(());
    }
    // A link may lead to it, and what it leads to may have no end.
    let content =
        file.canonicalize().and_then(|file| untrusted_file::read(&file, MAX_CERTIFICATES));
    let text = content.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let mark = b"-----BEGIN CERTIFICATE-----";
    if !text.windows(mark.len()).any(|window| window == mark) {
        return Err(format!("{} holds no certificate in PEM form", file.display()));
    }
    Ok(())
}

pub(crate) fn hosts_in(hosts: &str) -> impl Iterator<Item = String> {
    let names = hosts.split([',', ' ']).filter(|name| !name.is_empty());
    names.map(str::to_ascii_lowercase)
}

pub(crate) fn registries(hosts: &str) -> Result<(), String> {
    match hosts_in(hosts).find(|host| !is_host_of_url(host)) {
        Some(wrong) => Err(format!("should be hosts such as registry.example.com, not `{wrong}`")),
        None => Ok(()),
    }
}

pub(crate) fn mirror(text: &str) -> Result<ProviderMirror, String> {
    if text.starts_with('/') {
        return Ok(ProviderMirror::Folder(text.into()));
    }
    let form = "should be https://HOST/PATH/ or the absolute path of a folder";
    let mut url = Url::parse(text).map_err(|_| format!("{form}, not `{text}`"))?;
    // Not the text: it may hold a password.
    if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{form}, with no user and password in it"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{form}, with nothing after the path"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(ProviderMirror::Network(url))
}

pub(crate) fn absolute(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!("should be an absolute path, not `{}`", path.display()));
    }
    Ok(())
}

pub(crate) fn socket(address: &str) -> Result<(), String> {
    match address.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') && path.len() <= SOCKET_PATH_BYTES => Ok(()),
        Some(path) if path.len() > SOCKET_PATH_BYTES => {
            Err(format!("the socket's path is longer than {SOCKET_PATH_BYTES} bytes"))
        }
        _ => Err(format!("should look like {ENGINE_SOCKET}, not `{address}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_as_the_engine_names_it() {
        let digest = format!("x@sha256:{}", "0".repeat(64));
        for name in [
            "terraform",
            "hashicorp/terraform:1.9",
            "hashicorp/terraform:{version}",
            "registry.example.com:5000/a/b-c/d_e.f:1.9.8-rc1",
            "localhost/run:1",
            "localhost:5000/run",
            "[2001:db8::1]:5000/run",
            "sha256:0123456789abcdef",
            "REGISTRY:5000/tool",
            "REGISTRY/tool",
            "Registry.example.com/tool:1",
            "registry.example.com:443/tool",
            "[2001:DB8::1]:5000/run",
            "a--b/c__d",
            &digest,
            &format!("r.example.com:5000/{digest}"),
        ] {
            assert_eq!(image(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "-rm",
            "terraform:",
            "Hashicorp/Terraform",
            "terra form",
            "terraform:1.9 --privileged",
            "https://registry.example.com/run",
            "/run",
            "run/",
            "a//b",
            "../run",
            "a.b,c.d/run",
            "r.example.com /run",
            "run:{image}",
            "run@sha256:12",
            "run\n",
            "$(id)",
            "bücher",
            "registry.example.com:port/run",
            "registry.example.com:65536/run",
            "registry.example.com:0/run",
            "registry.example.com:/run",
            "REGISTRY:70000/tool",
            "REGISTRY/Tool",
            "-registry.example.com/run",
            "registry..example.com/run",
            "user@registry.example.com/run",
            "[2001:db8::1/run",
            "[2001:db8::g]:5000/run",
            "a___b",
            "a._b",
            &format!("x@sha256:{}", "0".repeat(63)),
            &format!("x@sha256:{}", "A".repeat(64)),
            &format!("x@md5:{}", "0".repeat(32)),
            &format!("run:{}", "1".repeat(129)),
        ] {
            assert!(image(name).is_err(), "{name}");
        }
        assert!(!image("run\u{1b}[31m\n").unwrap_err().contains(['\u{1b}', '\n']));
    }

    #[test]
    fn a_mirror_is_an_address_or_a_folder() {
        let mirror = |text| mirror(text).unwrap();
        let network = ProviderMirror::Network("https://mirror.example.com/p/".parse().unwrap());
        assert_eq!(mirror("https://mirror.example.com/p"), network);
        assert_eq!(mirror("https://mirror.example.com/p/"), network);
        assert_eq!(mirror("/srv/mirror"), ProviderMirror::Folder("/srv/mirror".into()));
    }
}
