//! What holds of the sources themselves.

mod calls;
mod crates;
mod security;
mod words;
