//! Shared by the three command lines: exit codes, errors that carry one, manual
//! pages and completions.

pub mod documents;
pub mod exit;

pub use exit::Failure;
