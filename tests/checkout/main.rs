//! What holds of the sources themselves.

mod crates;
mod words;
