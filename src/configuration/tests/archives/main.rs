//! Archives as tools write them, and as nobody but an attacker does.

mod builder;
mod fuzz;
mod hostile;
mod tools;
