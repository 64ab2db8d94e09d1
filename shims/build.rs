//! Cargo wants a build script beside `links`; this one also says so where the shims can't work.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    let (os, libc, arch) = (target("OS"), target("ENV"), target("ARCH"));
    if os != "linux" || libc != "gnu" || !["x86_64", "aarch64"].contains(&arch.as_str()) {
        println!(
            "cargo::error=greenling-shims needs Linux with glibc on x86_64 or aarch64. For \
             greenling without monkey patching set `default-features = false`."
        );
    }
}
