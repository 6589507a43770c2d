//! Which crate may use which: `proto ← pagecache ← engine ← {send, ring, epoll, sim} ← server`. An edge the other way fails here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

/// What each crate of the workspace may depend on. A crate that is not listed fails the test: decide where it stands.
const ALLOWED: &[(&str, &[&str])] = &[
    ("millrace-proto", &[]),
    ("millrace-pagecache", &["millrace-proto"]),
    ("millrace-engine", &["millrace-proto", "millrace-pagecache"]),
    ("millrace-send", &["millrace-proto", "millrace-pagecache", "millrace-engine"]),
    ("millrace-ring", &["millrace-proto", "millrace-pagecache", "millrace-engine", "millrace-send"]),
    ("millrace-epoll", &["millrace-proto", "millrace-pagecache", "millrace-engine", "millrace-send"]),
    ("millrace-sim", &["millrace-proto", "millrace-pagecache", "millrace-engine"]),
    (
        "millrace-relay",
        &[
            "millrace-proto",
            "millrace-pagecache",
            "millrace-engine",
            "millrace-send",
            "millrace-ring",
            "millrace-epoll",
        ],
    ),
    ("millrace-agent", &["millrace-proto"]),
    ("millrace-perf", &["millrace-proto", "millrace-pagecache"]),
    ("millrace-interop", &["millrace-proto"]),
];

/// Crates that do I/O, tell the time or draw randomness, and so have no place below the seam.
const IMPURE: &[&str] = &["libc", "nix", "tokio", "socket2", "io-uring", "ring", "rand", "memmap2"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("relay/server lies two folders deep")
}

/// Names of all crates in the workspace, and what each depends on when it is not being tested.
fn edges() -> BTreeMap<String, Vec<String>> {
    let manifest = |path: &Path| -> toml::Table {
        std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .parse()
            .unwrap()
    };
    let workspace = manifest(&root().join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut folders = Vec::new();
    for member in members.iter().map(|member| member.as_str().unwrap()) {
        match member.strip_suffix("/*") {
            None => folders.push(root().join(member)),
            Some(parent) => {
                let entries =
                    std::fs::read_dir(root().join(parent)).unwrap().map(|entry| entry.unwrap().path());
                folders.extend(entries.filter(|folder| folder.join("Cargo.toml").exists()));
            }
        }
    }
    let read = |folder: &std::path::PathBuf| {
        let manifest = manifest(&folder.join("Cargo.toml"));
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let dependencies = manifest.get("dependencies").and_then(|table| table.as_table());
        (name, dependencies.map(|table| table.keys().cloned().collect()).unwrap_or_default())
    };
    folders.iter().map(read).collect()
}

#[test]
fn no_crate_depends_the_wrong_way() {
    let edges = edges();
    for (name, dependencies) in &edges {
        let allowed = ALLOWED.iter().find(|(listed, _)| listed == name);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{name} is not listed: decide what it may depend on"));
        for dependency in dependencies.iter().filter(|dependency| edges.contains_key(*dependency)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
    assert!(edges.contains_key("millrace-engine"), "the workspace was not read");
}

#[test]
fn the_engine_and_proto_can_do_no_io() {
    let edges = edges();
    for name in ["millrace-proto", "millrace-engine", "millrace-sim"] {
        for dependency in &edges[name] {
            assert!(
                !IMPURE.contains(&dependency.as_str()),
                "{name} is pure and must not depend on {dependency}"
            );
        }
    }
    // What the standard library offers for the same is kept out by name.
    let source = root().join("relay/engine/src");
    let forbidden =
        ["std::fs", "std::net::Tcp", "std::thread", "Instant", "SystemTime", "std::process", "std::env"];
    for path in files(&source).into_iter().chain(files(&root().join("proto/src"))) {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

/// It is little maintained: what would replace it must have one place to go to.
#[test]
fn tokio_uring_stays_behind_one_module() {
    let source = root().join("relay/server/src");
    let users = files(&source).into_iter().filter(|path| {
        let text = std::fs::read_to_string(path);
        text.is_ok_and(|text| text.contains("tokio_uring"))
    });
    assert_eq!(users.collect::<Vec<_>>(), [source.join("ingest/runtime.rs")]);
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry)),
            false => found.push(entry),
        }
    }
    found
}
