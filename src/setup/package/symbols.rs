//! Which processor and which glibc a program is for.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::FileHeader as _;

/// The newest glibc that a packaged program may ask for: that of Enterprise
/// Linux 7.
const GLIBC: [u32; 2] = [2, 17];

/// A processor that there are packages for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Processor {
    /// amd64.
    #[default]
    #[value(name = "x86_64-unknown-linux-gnu")]
    X86_64,
    /// arm64.
    #[value(name = "aarch64-unknown-linux-gnu")]
    Aarch64,
}

impl Processor {
    /// rustc's name of the target.
    pub(super) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The kernel's name (`uname -m`), which is rpm's too.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// dpkg's name.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    fn elf(self) -> object::elf::Machine {
        match self {
            Self::X86_64 => object::elf::EM_X86_64,
            Self::Aarch64 => object::elf::EM_AARCH64,
        }
    }
}

/// Refuses programs that the oldest host could not load.
///
/// # Errors
/// One is no program for `processor`; or some need a glibc newer than 2.17.
pub(super) fn require_all(
    programs: impl IntoIterator<Item = impl AsRef<Path>>,
    processor: Processor,
) -> Result<()> {
    let mut too_new = Vec::new();
    for program in programs {
        let program = program.as_ref();
        let data =
            std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        let needs = needs(&data, processor)
            .with_context(|| format!("cannot package {}", program.display()))?;
        let newer: Vec<_> = needs.into_iter().filter(|version| is_too_new(version)).collect();
        if !newer.is_empty() {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            too_new.push(format!("{name} ({})", newer.join(", ")));
        }
    }
    if too_new.is_empty() {
        return Ok(());
    }
    bail!(
        "some programs need more than glibc 2.17 and do not run on Enterprise Linux 7: {}",
        too_new.join("; ")
    )
}

/// The versions of symbols that a program asks its libraries for, sorted; none if
/// it is linked statically.
fn needs(data: &[u8], processor: Processor) -> Result<Vec<String>> {
    let header = FileHeader64::<LittleEndian>::parse(data).context("it is no program for Linux")?;
    let endian = header.endian()?;
    if header.e_machine(endian) != processor.elf() {
        bail!("it is not for {}", processor.name());
    }
    let sections = header.sections(endian, data)?;
    let Some((mut libraries, link)) = sections.gnu_verneed(endian, data)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, data, link)?;
    let mut versions = Vec::new();
    while let Some((_, mut symbols)) = libraries.next()? {
        while let Some(symbol) = symbols.next()? {
            versions.push(String::from_utf8_lossy(symbol.name(endian, strings)?).into_owned());
        }
    }
    versions.sort();
    versions.dedup();
    Ok(versions)
}

/// Whether a version of a symbol is one that glibc 2.17 does not have. Other
/// libraries' versions (`GCC_3.0`) are old enough.
fn is_too_new(version: &str) -> bool {
    let Some(number) = version.strip_prefix("GLIBC_") else { return false };
    // What is no number (`GLIBC_ABI_DT_RELR`) is a feature that came later.
    number
        .split('.')
        .map(str::parse)
        .collect::<Result<Vec<u32>, _>>()
        .map_or(true, |number| number.as_slice() > GLIBC.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        for old in ["GLIBC_2.2.5", "GLIBC_2.3", "GLIBC_2.17", "GCC_3.0"] {
            assert!(!is_too_new(old), "{old}");
        }
        for new in ["GLIBC_2.18", "GLIBC_2.17.1", "GLIBC_2.34", "GLIBC_3", "GLIBC_ABI_DT_RELR"] {
            assert!(is_too_new(new), "{new}");
        }
    }

    #[test]
    fn a_program_of_this_machine_says_what_it_needs() {
        let data = std::fs::read("/proc/self/exe").unwrap();
        let (own, other) = match std::env::consts::ARCH {
            "aarch64" => (Processor::Aarch64, Processor::X86_64),
            _ => (Processor::X86_64, Processor::Aarch64),
        };
        let needs = needs(&data, own).unwrap();
        assert!(needs.iter().any(|version| version.starts_with("GLIBC_2.")), "{needs:?}");
        let error = super::needs(&data, other).unwrap_err();
        assert_eq!(error.to_string(), format!("it is not for {}", other.name()));
        assert!(super::needs(b"#!/bin/sh\n", own).is_err());
    }
}
