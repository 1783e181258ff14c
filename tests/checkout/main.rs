//! What holds of the sources themselves.

mod crates;
mod security;
mod words;
