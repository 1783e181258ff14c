//! What the three command lines share: exit codes, errors that carry one, manual
//! pages and completions.

pub mod documents;
pub mod exit;

pub use exit::Failure;
