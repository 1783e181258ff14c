//! What holds of the sources themselves.

mod calls;
mod crates;
mod faults;
mod security;
mod words;
