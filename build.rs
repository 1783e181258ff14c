//! Gives the programs build ids, by which a debugger finds their symbols, which
//! are packed apart: zig's linker makes none unless asked.

fn main() {
    println!("cargo::rerun-if-changed=../../build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,--build-id=sha1");
}
