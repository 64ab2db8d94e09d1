//! Rules about the source that no compiler checks: which file may use what, which file may import
//! what, and that ARCHITECTURE.md knows every file. A failure says what to do.
//!
//! The rules themselves are explained in ARCHITECTURE.md. Change a list here only together with
//! its reason there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layer of each module of greenling: imports point down, to a lower number.
const LAYERS: &[(&str, u32)] = &[
    // L0: pure data.
    ("slab", 0),
    ("timers", 0),
    ("wait_list", 0),
    // L1: stacks.
    ("stack", 1),
    ("fiber", 1),
    // L2: the scheduler.
    ("hub", 2),
    // L3: greenlets, and what makes them wait for each other.
    ("greenlet", 3),
    ("time", 3),
    ("sync", 3),
    ("threadpool", 3),
    // L4: what waits for the world.
    ("io", 4),
    ("dns", 4),
    ("net", 4),
    // L5: the way in for unmodified code.
    ("monkey", 5),
];

/// Imports within a layer: who imports whom.
const SIBLINGS: &[(&str, &str)] = &[
    ("timers", "slab"),
    ("fiber", "stack"),
    // `spawn_later` and `join_timeout` turn a duration into a deadline; `sleep(0)` is a yield.
    ("greenlet", "time"),
    ("time", "greenlet"),
    ("sync", "time"),
    ("dns", "io"),
    ("net", "io"),
    ("net", "dns"),
];

/// Imports that point up, each explained in ARCHITECTURE.md under "Layers".
const UPWARDS: &[(&str, &str)] = &[
    // A record's typed half is greenlet's, also that of the main greenlet.
    ("src/hub/current.rs", "greenlet"),
];

/// What the crate's root re-exports, and where it is at home.
const RE_EXPORTED: &[(&str, &str)] = &[
    ("Builder", "greenlet"),
    ("Greenlet", "greenlet"),
    ("GreenletError", "greenlet"),
    ("GreenletId", "greenlet"),
    ("GreenletRef", "greenlet"),
    ("getcurrent", "greenlet"),
    ("joinall", "greenlet"),
    ("spawn", "greenlet"),
    ("spawn_later", "greenlet"),
    ("yield_now", "greenlet"),
    ("TimedOut", "time"),
    ("sleep", "time"),
    ("with_timeout", "time"),
];

/// The layer of each file of greenling-shims. There, too, imports point down.
const SHIM_LAYERS: &[(&str, u32)] = &[
    // The border, and what everything rests on.
    ("runtime", 0),
    ("errno", 0),
    ("iovecs", 0),
    ("host", 0),
    ("clock", 0),
    ("real", 1),
    // What the shims know.
    ("lookup", 2),
    ("kind", 2),
    ("fds", 3),
    ("shard", 2),
    ("futex", 3),
    // The decision.
    ("gate", 4),
    ("blocking", 5),
    ("wait", 6),
    // One file per family of calls.
    ("accept", 7),
    ("connect", 7),
    ("descriptors", 7),
    ("dns", 7),
    ("hosts", 7),
    ("receive", 7),
    ("send", 7),
    ("socket", 7),
    ("sync", 7),
    ("time", 7),
    // Those that are made of others.
    ("poll", 8),
    ("rw", 8),
    // The table, and what reads it.
    ("table", 9),
    ("check", 10),
];

/// Imports of greenling-shims that point up, each explained in ARCHITECTURE.md under "Layers".
const SHIM_UPWARDS: &[(&str, &str)] = &[
    // Patching must make the linker take every shim out of the archive: it names the table.
    ("shims/src/gate.rs", "TABLE"),
];

/// The files of greenling in which `unsafe` may stand. Every block in them says why it is sound.
const UNSAFE: &[&str] = &[
    "src/fiber.rs",
    "src/greenlet.rs",
    "src/hub/core.rs",
    "src/hub/current.rs",
    "src/hub/interrupt.rs",
    "src/hub/park.rs",
    "src/hub/reactor.rs",
    "src/hub/record.rs",
    "src/hub/remote.rs",
    "src/hub/report.rs",
    "src/hub/run_queue.rs",
    "src/io/pollable.rs",
    "src/io/wait.rs",
    "src/monkey/runtime.rs",
    "src/net/accept.rs",
    "src/net/macros.rs",
    "src/net/socket.rs",
    "src/stack/",
    "src/threadpool.rs",
];

/// The files of greenling-shims without `unsafe`: all others talk to C.
const SHIMS_SAFE: &[&str] = &[
    "shims/src/fds_tests.rs",
    "shims/src/gate.rs",
    "shims/src/kind.rs",
    "shims/src/lib.rs",
    "shims/src/lookup.rs",
    "shims/src/wait.rs",
];

/// Words that may stand only in the files listed with them.
const WORDS: &[(&str, &[&str])] = &[
    // One thread-local, so that a switch has one to swap. (greenlet.rs shows one to its reader.)
    ("thread_local!", &["src/hub/current.rs"]),
    ("corosensei", &["src/fiber.rs", "src/stack/slot.rs"]),
    ("mio", &["src/hub/reactor.rs"]),
    // `real` finds the real functions, `check` asks what the loader has bound.
    ("dlsym", &["shims/src/real.rs", "shims/src/check.rs"]),
    (
        "extern \"C\"",
        &[
            "shims/src/",
            // Handlers for fork and for signals.
            "src/hub/current.rs",
            "src/stack/overflow.rs",
            "src/stack/tests.rs",
            "src/threadpool.rs",
        ],
    ),
    ("no_mangle", &["shims/src/"]),
    ("static mut", &[]),
    ("std::mem::transmute", &["shims/src/dns.rs", "shims/src/hosts.rs", "src/stack/overflow.rs"]),
];

/// Words that may stand nowhere. In two parts, so that this file does not contain them.
const NOWHERE: &[(&str, &str)] = &[
    ("TO", "DO"),
    ("FIX", "ME"),
    ("db", "g!"),
    ("todo", "!("),
    ("unimplemented", "!("),
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("/wo", "rk/"),
];

/// The length at which a file should be split.
const LINES_MAX: usize = 500;

/// Longer files, and why they are one.
const LONG: &[(&str, &str)] = &[
    ("shims/src/fds.rs", "one table and what may be asked of it"),
    ("src/greenlet.rs", "half of it is the public documentation"),
    ("src/hub/reactor.rs", "one table and what may be asked of it"),
    ("src/timers.rs", "half of it is its tests"),
    ("src/stack/tests.rs", "tests"),
];

#[test]
fn imports_point_down() {
    let mut complaints = Vec::new();
    for file in sources("src") {
        // The tests of a module look at it from above, as its users do.
        if file.path.ends_with("/tests.rs") {
            continue;
        }
        let Some(module) = module(&file.path, "src") else { continue };
        if file.path.ends_with("/tests.rs") {
            continue;
        }
        let Some(layer) = layer(LAYERS, &module) else {
            complaints.push(format!(
                "{}: `{module}` has no layer: add it to LAYERS and to ARCHITECTURE.md",
                file.path
            ));
            continue;
        };
        for import in imports(file.code()) {
            let target = RE_EXPORTED
                .iter()
                .find(|(name, _)| *name == import)
                .map_or(import.as_str(), |(_, home)| home);
            if target == module || UPWARDS.contains(&(file.path.as_str(), target)) {
                continue;
            }
            let below = layer_of(LAYERS, target).is_some_and(|target| target < layer);
            if !below && !SIBLINGS.contains(&(module.as_str(), target)) {
                complaints.push(format!(
                    "{}: imports `crate::{import}`, which is not below `{module}`: move what is \
                     shared down, or list the two in SIBLINGS with a reason in ARCHITECTURE.md",
                    file.path
                ));
            }
        }
    }
    for file in sources("shims/src") {
        let Some(module) = module(&file.path, "shims/src") else { continue };
        if module == "fds_tests" {
            continue;
        }
        let Some(layer) = layer(SHIM_LAYERS, &module) else {
            complaints.push(format!("{}: add `{module}` to SHIM_LAYERS", file.path));
            continue;
        };
        for import in imports(file.code()) {
            let up = SHIM_UPWARDS.contains(&(file.path.as_str(), import.as_str()))
                || (import == "TABLE" && layer > 9);
            let below = layer_of(SHIM_LAYERS, &import).is_some_and(|target| target < layer);
            if !up && !below && import != module {
                complaints.push(format!(
                    "{}: imports `crate::{import}`, which is not below it in SHIM_LAYERS",
                    file.path
                ));
            }
        }
    }
    assert_tidy(complaints);
}

#[test]
fn the_ground_floors_of_the_hub_stay_free_of_it() {
    // Inside the hub, `impl Hub` is spread over files that know each other. These do not take part.
    let may_import: &[(&str, &[&str])] = &[
        ("src/hub/remote.rs", &[]),
        ("src/hub/run_queue.rs", &["record"]),
        ("src/hub/reason.rs", &["Direction"]),
        ("src/hub/reactor.rs", &["Direction", "park", "record"]),
    ];
    let mut complaints = Vec::new();
    for (path, allowed) in may_import {
        let file = read(path);
        for line in file.code().lines() {
            for import in names_after(line, "crate::hub::") {
                if !allowed.contains(&import.as_str()) {
                    complaints.push(format!("{path}: imports `crate::hub::{import}`"));
                }
            }
        }
    }
    assert_tidy(complaints);
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let mut complaints = Vec::new();
    for file in sources("src").into_iter().chain(sources("shims/src")) {
        let uses = file.code().lines().any(|line| words(strip(line)).any(|word| word == "unsafe"));
        let may = if file.path.starts_with("shims/") {
            !SHIMS_SAFE.contains(&file.path.as_str())
        } else {
            listed(UNSAFE, &file.path)
        };
        if uses && !may {
            complaints.push(format!("{}: `unsafe` is for the files in UNSAFE", file.path));
        }
        if !uses && may && file.path != "src/stack/mod.rs" && !pardoned(&file.path) {
            complaints.push(format!("{}: no `unsafe` left: take it off the list", file.path));
        }
    }
    assert_tidy(complaints);
}

/// Safe files under a folder or crate that is listed as a whole.
fn pardoned(path: &str) -> bool {
    path.starts_with("src/stack/") || path == "shims/src/runtime.rs"
}

#[test]
fn words_stand_only_where_they_are_listed() {
    let mut complaints = Vec::new();
    for file in sources("src").into_iter().chain(sources("shims/src")) {
        for (word, allowed) in WORDS {
            let used = file.code().lines().any(|line| contains_word(strip(line), word));
            if used && !listed(allowed, &file.path) {
                complaints.push(format!("{}: `{word}` is for {allowed:?}", file.path));
            }
        }
    }
    assert_tidy(complaints);
}

#[test]
fn nothing_is_left_over() {
    let mut complaints = Vec::new();
    for file in everything() {
        for (number, line) in file.text.lines().enumerate() {
            for (first, second) in NOWHERE {
                let word = format!("{first}{second}");
                if line.contains(&word) {
                    complaints.push(format!("{}:{}: `{word}`", file.path, number + 1));
                }
            }
        }
    }
    assert_tidy(complaints);
}

#[test]
fn every_file_says_what_it_is() {
    let mut complaints = Vec::new();
    for file in everything() {
        if file.path.ends_with(".rs") && !file.text.starts_with("//!") {
            complaints.push(format!(
                "{}: begin with `//!`: what the file is, what it relies on, what it must never do",
                file.path
            ));
        }
    }
    assert_tidy(complaints);
}

#[test]
fn no_file_is_too_long() {
    let mut complaints = Vec::new();
    for file in sources("src").into_iter().chain(sources("shims/src")) {
        let lines = file.text.lines().count();
        if lines > LINES_MAX && !LONG.iter().any(|(path, _)| *path == file.path) {
            complaints.push(format!(
                "{}: {lines} lines; split it by nouns, or list it in LONG with the reason",
                file.path
            ));
        }
    }
    assert_tidy(complaints);
}

#[test]
fn the_map_names_every_file_once() {
    let map = read("ARCHITECTURE.md");
    let mut complaints = Vec::new();
    for file in sources("src").into_iter().chain(sources("shims/src")) {
        // The map's tables begin each row with the file's path.
        let row = format!("| `{}` |", file.path);
        match map.text.matches(&row).count() {
            1 => {}
            0 => complaints.push(format!(
                "{}: ARCHITECTURE.md has no row `{row} what it is |` for it",
                file.path
            )),
            many => {
                complaints.push(format!("{}: ARCHITECTURE.md has {many} rows for it", file.path))
            }
        }
    }
    for line in map.text.lines() {
        if let Some(path) = line.strip_prefix("| `").and_then(|line| line.split('`').next())
            && (path.starts_with("src/") || path.starts_with("shims/src/"))
            && !root().join(path).exists()
            && root().join("shims").exists()
        {
            complaints.push(format!("ARCHITECTURE.md: {path} does not exist"));
        }
    }
    assert_tidy(complaints);
}

#[test]
fn every_shim_is_tested_by_name() {
    if !root().join("shims").exists() {
        return;
    }
    let table = read("shims/src/table.rs");
    let tests: String = everything()
        .into_iter()
        .filter(|file| file.path.contains("tests"))
        .map(|file| file.text)
        .collect();
    let tested: BTreeSet<&str> = words(&tests).collect();
    // Calls that std makes for the tests, and forms that share every line with one that is tested.
    let through_others = ["bind", "listen", "getsockopt", "shutdown", "connect", "accept4"];
    let mut complaints = Vec::new();
    for line in table.text.lines() {
        let Some((_, row)) = line.trim().split_once("::") else { continue };
        let Some((name, _)) = row.split_once(", ") else { continue };
        if line.trim_end().ends_with("\";")
            && !tested.contains(name)
            && !through_others.contains(&name)
        {
            complaints.push(format!("{name}: no test names this shim"));
        }
    }
    assert_tidy(complaints);
}

/// A file and what is in it.
struct Source {
    /// The path from the repository's root.
    path: String,
    /// The whole text.
    text: String,
}

impl Source {
    /// The text without the file's own tests.
    fn code(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        &self.text[..end]
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> Source {
    let text = fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{path} can't be read: {error}"));
    Source { path: path.to_owned(), text }
}

/// The Rust files below a folder, in order; none if the folder is not there (as in the package).
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    found.sort();
    found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| read(path.strip_prefix(root()).unwrap().to_str().unwrap()))
        .collect()
}

/// Every text file of the repository's that somebody wrote.
fn everything() -> Vec<Source> {
    let folders = ["src", "shims/src", "shims/tests", "tests", "examples", "benches"];
    let mut all: Vec<Source> = folders.iter().flat_map(|folder| sources(folder)).collect();
    for path in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "src/hub/README.md", "Cargo.toml"]
    {
        all.push(read(path));
    }
    all
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The module that a file belongs to: the first part of its path. None for the crate's root.
fn module(path: &str, crate_folder: &str) -> Option<String> {
    let path = path.strip_prefix(crate_folder)?.trim_start_matches('/');
    let module = path.split('/').next()?.trim_end_matches(".rs");
    (module != "lib").then(|| module.to_owned())
}

fn layer(layers: &[(&str, u32)], module: &str) -> Option<u32> {
    layer_of(layers, module)
}

fn layer_of(layers: &[(&str, u32)], module: &str) -> Option<u32> {
    layers.iter().find(|(name, _)| *name == module).map(|&(_, layer)| layer)
}

/// The first names of all paths that begin with `crate::`, macros aside.
fn imports(code: &str) -> BTreeSet<String> {
    code.lines().map(strip).flat_map(|line| names_after(line, "crate::")).collect()
}

/// The names that follow `prefix` in a line: one, or those of a list in braces.
fn names_after(line: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let rest = &line[at + prefix.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or(list);
            names.extend(list.split(',').filter_map(|item| words(item).next().map(str::to_owned)));
            continue;
        }
        if let Some(name) = words(rest).next()
            && rest.starts_with(name)
            && !rest[name.len()..].starts_with('!')
        {
            names.push(name.to_owned());
        }
    }
    names.retain(|name| name != "self");
    names
}

/// A line without its comment.
fn strip(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The identifiers of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether `word`, which may have several parts, stands in a line as it is.
fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// Whether a list names the path or a folder above it.
fn listed(list: &[&str], path: &str) -> bool {
    list.iter().any(|&entry| entry == path || (entry.ends_with('/') && path.starts_with(entry)))
}

fn assert_tidy(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "not tidy:\n  {}", complaints.join("\n  "));
}
