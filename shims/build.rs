//! Cargo wants a build script beside `links`; this one has nothing to do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
