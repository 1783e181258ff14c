//! What holds of the sources themselves.

mod crates;
