//! The crate graph: edges point down only, and the cell's build holds no code that decrypts.
//!
//! Two kinds of rule. *Edges* are read from the manifests, so that a forbidden dependency is refused even
//! where nothing uses it yet. *Closures* are read from `cargo tree`, so that nothing forbidden comes in
//! through somebody else's crate.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::sys::{self, Doing, Failure, Outcome};

/// What each crate of the workspace may depend on within the workspace. A crate that is not here is
/// refused: a new crate comes with a decision about its place.
const ALLOWED_EDGES: [(&str, &[&str]); 13] = [
    ("candor-wire", &[]),
    ("candor-consent", &["candor-wire"]),
    ("candor-log", &["candor-consent", "candor-wire"]),
    ("candor-vault", &["candor-consent", "candor-wire"]),
    ("candor-messaging", &["candor-consent", "candor-wire"]),
    ("candor-lockbox", &["candor-consent", "candor-wire"]),
    ("candor-relay", &["candor-consent", "candor-wire"]),
    ("candor-store", &["candor-consent", "candor-wire"]),
    (
        "candor-client",
        &[
            "candor-vault",
            "candor-messaging",
            "candor-lockbox",
            "candor-relay",
            "candor-log",
            "candor-consent",
            "candor-wire",
        ],
    ),
    (
        "candor-server",
        &[
            "candor-log",
            "candor-relay",
            "candor-store",
            "candor-consent",
            "candor-wire",
        ],
    ),
    (
        "candor-app",
        &[
            "candor-client",
            "candor-server",
            "candor-consent",
            "candor-wire",
        ],
    ),
    (
        "candor-testkit",
        &[
            "candor-client",
            "candor-server",
            "candor-store",
            "candor-log",
            "candor-vault",
            "candor-consent",
            "candor-wire",
        ],
    ),
    ("xtask", &[]),
];

/// Edges for tests alone, beside those to the testkit: who, what, and why. Nothing that is shipped links them.
const TEST_EDGES: [(&str, &str, &str); 1] = [(
    "candor-client",
    "candor-server",
    "its tests run against a real cell",
)];

/// Only these may name a crate that opens or serves connections in their manifest.
const MAY_NETWORK: [&str; 4] = [
    "candor-client",
    "candor-server",
    "candor-app",
    "candor-testkit",
];

/// Crates that open or serve connections, or run the event loop that does.
const NETWORK: [&str; 13] = [
    "tokio",
    "mio",
    "socket2",
    "hyper",
    "hyper-util",
    "h2",
    "axum",
    "tower-http",
    "rustls",
    "tokio-rustls",
    "rustls-native-certs",
    "quinn",
    "reqwest",
];

/// Who else may name one of them, and why.
const NETWORK_EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "candor-store",
    "tokio",
    "its engines wait for disks on the runtime's threads; clippy bans sockets there",
)];

/// Crates that a core without I/O, clock and random source may not link, at any depth.
const INPUT_AND_OUTPUT: [&str; 9] = [
    "rusqlite",
    "libsqlite3-sys",
    "getrandom",
    "rand",
    "rustix",
    "nix",
    "tempfile",
    "object_store",
    "ignore",
];

/// The code that holds or uses the keys of people's data.
const DECRYPTING: [&str; 4] = [
    "candor-vault",
    "candor-messaging",
    "candor-lockbox",
    "candor-client",
];

/// How the program for operators is built.
pub(crate) const CELL_FEATURES: [&str; 3] = ["--no-default-features", "--features", "cell"];

/// Checks every edge and every closure.
pub(crate) fn check() -> Outcome {
    let packages = workspace_packages()?;
    let mut findings = Vec::new();
    for package in packages.values() {
        check_edges(package, &mut findings);
        check_manifest(package, &mut findings);
    }
    for (package, forbidden) in forbidden_closures() {
        if packages.contains_key(package) {
            let linked = linked_crates(package, &[])?;
            report_forbidden(package, &linked, &forbidden, &mut findings);
        }
    }
    sys::no_findings("edges that point the wrong way", &findings)?;
    println!("{} crates, every edge points down", packages.len());
    Ok(())
}

/// Invariant 1 for the deployed program: its graph holds nothing that decrypts.
pub(crate) fn check_cell_build() -> Outcome {
    let linked = linked_crates("candor-app", &CELL_FEATURES)?;
    if !linked.contains("candor-server") {
        return Err(Failure::new(
            "the cell's build of candor-app does not link candor-server",
        ));
    }
    let mut findings = Vec::new();
    report_forbidden(
        "candor-app with `cell` only",
        &linked,
        &DECRYPTING,
        &mut findings,
    );
    sys::no_findings("the operators' program links what decrypts", &findings)?;
    println!(
        "the operators' program links {} crates, none of which decrypts",
        linked.len()
    );
    Ok(())
}

struct Package {
    name: String,
    manifest: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    is_development: bool,
}

fn workspace_packages() -> Outcome<BTreeMap<String, Package>> {
    let words = ["metadata", "--format-version", "1", "--no-deps", "--locked"];
    let text = sys::text(sys::cargo().args(words))?;
    let metadata: Value = serde_json::from_str(&text).doing("cargo metadata")?;
    let listed = metadata["packages"]
        .as_array()
        .ok_or_else(|| Failure::new("cargo metadata lists no packages"))?;
    Ok(listed
        .iter()
        .filter_map(package)
        .map(|package| (package.name.clone(), package))
        .collect())
}

fn package(value: &Value) -> Option<Package> {
    let dependencies = value["dependencies"]
        .as_array()?
        .iter()
        .filter_map(|dependency| {
            Some(Dependency {
                name: dependency["name"].as_str()?.to_owned(),
                is_development: dependency["kind"].as_str() == Some("dev"),
            })
        });
    Some(Package {
        name: value["name"].as_str()?.to_owned(),
        manifest: value["manifest_path"].as_str()?.to_owned(),
        dependencies: dependencies.collect(),
    })
}

fn check_edges(package: &Package, findings: &mut Vec<String>) {
    let Some((_, allowed)) = ALLOWED_EDGES.iter().find(|(name, _)| *name == package.name) else {
        findings.push(format!(
            "{}: no place in the graph (add it to xtask's edges)",
            package.name
        ));
        return;
    };
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let in_workspace = ALLOWED_EDGES.iter().any(|(known, _)| *known == name);
        // A crate names itself to switch on a feature of its own for its tests.
        let is_listed = TEST_EDGES
            .iter()
            .any(|(who, what, _)| *who == package.name && *what == name);
        let is_for_tests = dependency.is_development
            && (name == "candor-testkit" || name == package.name || is_listed);
        if in_workspace && !allowed.contains(&name) && !is_for_tests {
            findings.push(format!("{} -> {name}", package.name));
        }
        let is_exception = NETWORK_EXCEPTIONS
            .iter()
            .any(|(who, what, _)| *who == package.name && *what == name);
        let may_network = MAY_NETWORK.contains(&package.name.as_str())
            || dependency.is_development
            || is_exception;
        if NETWORK.contains(&name) && !may_network {
            findings.push(format!(
                "{} -> {name}: only {} may",
                package.name,
                MAY_NETWORK.join(", ")
            ));
        }
    }
}

/// Every crate takes the workspace's lints, or the bans would not hold in it.
fn check_manifest(package: &Package, findings: &mut Vec<String>) {
    let inherits = std::fs::read_to_string(&package.manifest)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|manifest| manifest.get("lints")?.get("workspace")?.as_bool());
    if inherits != Some(true) {
        findings.push(format!(
            "{}: its manifest does not say `lints.workspace = true`",
            package.name
        ));
    }
}

fn forbidden_closures() -> Vec<(&'static str, Vec<&'static str>)> {
    let no_io: Vec<&str> = NETWORK.iter().chain(&INPUT_AND_OUTPUT).copied().collect();
    vec![
        ("candor-wire", no_io.clone()),
        ("candor-consent", no_io.clone()),
        ("candor-log", no_io.clone()),
        ("candor-messaging", no_io.clone()),
        ("candor-lockbox", no_io),
        ("candor-vault", NETWORK.to_vec()),
        ("candor-store", DECRYPTING.to_vec()),
        ("candor-server", DECRYPTING.to_vec()),
    ]
}

/// The names of all crates that a package links on this platform, itself included.
fn linked_crates(package: &str, features: &[&str]) -> Outcome<BTreeSet<String>> {
    let words = [
        "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "-p",
        package,
    ];
    let tree = sys::text(sys::cargo().args(words).args(features))?;
    Ok(tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

fn report_forbidden(
    package: &str,
    linked: &BTreeSet<String>,
    forbidden: &[&str],
    findings: &mut Vec<String>,
) {
    for name in forbidden {
        if linked.contains(*name) {
            findings.push(format!("{package} links {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings_of(name: &str, dependency: &str, is_development: bool) -> Vec<String> {
        let dependencies = vec![Dependency {
            name: dependency.to_owned(),
            is_development,
        }];
        let package = Package {
            name: name.to_owned(),
            manifest: String::new(),
            dependencies,
        };
        let mut findings = Vec::new();
        check_edges(&package, &mut findings);
        findings
    }

    #[test]
    fn an_edge_up_is_found() {
        assert_eq!(
            findings_of("candor-server", "candor-vault", false),
            ["candor-server -> candor-vault"]
        );
        assert_eq!(
            findings_of("candor-wire", "candor-consent", false),
            ["candor-wire -> candor-consent"]
        );
        assert!(findings_of("candor-client", "candor-vault", false).is_empty());
    }

    #[test]
    fn tests_may_use_the_testkit_but_not_the_other_side() {
        assert!(findings_of("candor-vault", "candor-testkit", true).is_empty());
        assert_eq!(findings_of("candor-vault", "candor-server", true).len(), 1);
        assert!(findings_of("candor-client", "candor-server", true).is_empty());
        assert_eq!(
            findings_of("candor-client", "candor-server", false).len(),
            1
        );
        assert_eq!(
            findings_of("candor-vault", "candor-testkit", false).len(),
            1
        );
    }

    #[test]
    fn a_socket_in_the_wrong_crate_is_found() {
        assert_eq!(findings_of("candor-vault", "tokio", false).len(), 1);
        assert!(findings_of("candor-client", "tokio", false).is_empty());
    }

    #[test]
    fn an_unknown_crate_is_refused() {
        assert_eq!(findings_of("candor-new", "serde", false).len(), 1);
    }

    #[test]
    fn what_decrypts_is_reported_in_a_closure() {
        let linked = BTreeSet::from(["candor-server".to_owned(), "candor-vault".to_owned()]);
        let mut findings = Vec::new();
        report_forbidden("candor-server", &linked, &DECRYPTING, &mut findings);
        assert_eq!(findings, ["candor-server links candor-vault"]);
    }
}
