//! Shared by the three command lines: exit codes, errors that carry one, manual
//! pages and completions, and files written whole.

pub mod documents;
pub mod exit;
pub mod print;
pub mod refusal;
pub mod untrusted_file;
pub mod whole_file;

pub use exit::Failure;
