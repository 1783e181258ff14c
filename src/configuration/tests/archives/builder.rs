//! Makes archives, also wrong ones, and reads them.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

use configuration::{Error, Kind, Reader};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

/// A tar archive without its end.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(name.as_bytes(), b'0', "", content)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.member(name.as_bytes(), b'5', "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(name.as_bytes(), b'2', target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(name.as_bytes(), b'1', target, b"")
    }

    /// A PAX header for the next member.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            writeln!(text, "{length} {key}={value}").unwrap();
        }
        self.member(b"PaxHeaders/x", b'x', "", text.as_bytes())
    }

    pub(crate) fn member(self, name: &[u8], kind: u8, target: &str, content: &[u8]) -> Self {
        self.raw(name, kind, target, content.len() as u64, content)
    }

    /// A member whose header may lie about its size.
    pub(crate) fn raw(
        mut self,
        name: &[u8],
        kind: u8,
        target: &str,
        size: u64,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_gnu();
        // Not by the methods, which refuse what is to be refused here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The archive, packed.
    pub(crate) fn packed(&self) -> Vec<u8> {
        gzip(&[&self.0, &[0; 1024][..]].concat())
    }
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What an archive has, a line for each entry: kind, path and content.
pub(crate) fn listed(archive: &[u8]) -> Result<Vec<String>, Error> {
    listed_in(archive, None)
}

/// The same, where Terraform is started in `directory`.
pub(crate) fn listed_in(archive: &[u8], directory: Option<&Path>) -> Result<Vec<String>, Error> {
    let mut reader = Reader::new(archive, directory)?;
    let mut lines = Vec::new();
    while let Some(entry) = reader.next()? {
        let path = entry.path.display();
        lines.push(match entry.kind {
            Kind::Directory => format!("{path}/"),
            Kind::File { size } => {
                let mut content = Vec::new();
                if let Err(error) = reader.read_to_end(&mut content) {
                    return Err(Error::Broken(error.to_string()));
                }
                assert_eq!(content.len() as u64, size, "{path}");
                format!("{path}: {}", shortened(&content))
            }
            Kind::HardLink { target } => format!("{path} = {}", target.display()),
            Kind::Symlink { target } => format!("{path} -> {}", target.display()),
        });
    }
    Ok(lines)
}

/// Long zeros and long texts by their length.
fn shortened(content: &[u8]) -> String {
    let zeros = content.iter().take_while(|byte| **byte == 0).count();
    let text = String::from_utf8_lossy(content[zeros..].trim_ascii());
    if zeros > 0 { format!("{zeros} zeros, then {text}") } else { text.into_owned() }
}

/// Why an archive is refused.
pub(crate) fn refusal(archive: &[u8]) -> String {
    match listed(archive) {
        Ok(_) => configuration::check(archive).expect_err("it is to be refused").to_string(),
        Err(error) => error.to_string(),
    }
}
