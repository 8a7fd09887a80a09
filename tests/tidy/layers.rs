//! Which folder may name which: the table of ARCHITECTURE.md.

use std::fs;

use super::{rust_files, shown};

/// What a folder must not name, and the files that may all the same.
struct Rule {
    folder: &'static str,
    must_not_name: &'static [&'static str],
    except: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        folder: "src/storage",
        must_not_name: &[
            "crate::node",
            "crate::db",
            "crate::driver",
            "crate::admin",
            "crate::commands",
            "prkdb_proto",
            "prkdb_client",
            "tokio",
            "tonic",
            "prost",
            "std::thread",
            "tracing",
        ],
        except: &[],
    },
    Rule {
        folder: "src/driver",
        must_not_name: &[
            "crate::node",
            "crate::db",
            "crate::admin",
            "crate::commands",
            "prkdb_proto",
            "prkdb_client",
            "openraft",
            "tonic",
        ],
        except: &[],
    },
    Rule {
        folder: "src/db",
        must_not_name: &[
            "crate::node",
            "crate::admin",
            "crate::commands",
            "prkdb_proto",
            "prkdb_client",
            "openraft",
            "tokio",
            "tonic",
            "clap",
            "anyhow",
        ],
        except: &[],
    },
    Rule {
        folder: "src/node",
        must_not_name: &["crate::commands", "prkdb_client", "clap", "anyhow"],
        except: &[],
    },
    Rule {
        folder: "src/admin",
        must_not_name: &["crate::commands", "openraft", "prkdb_client", "clap"],
        except: &[],
    },
    Rule {
        folder: "src/commands",
        must_not_name: &["crate::storage", "openraft"],
        // Measuring, and the offline verbs: they look at a data directory without a server.
        except: &[
            "src/commands/bench/",
            "src/commands/backup/restore.rs",
            "src/commands/snapshot/inspect.rs",
            "src/commands/wal/",
            "src/commands/doctor.rs",
        ],
    },
    Rule {
        folder: "crates/prkdb-types/src",
        must_not_name: &["tokio", "tonic", "prkdb_proto", "std::fs", "std::thread"],
        // It is a suite of tests that adapters' authors run.
        except: &["crates/prkdb-types/src/adapter/conformance/"],
    },
    Rule {
        folder: "crates/prkdb-client/src",
        must_not_name: &["prkdb::", "openraft"],
        except: &[],
    },
];

/// Crates that `src/storage` may use; all else of the outside is kept out by this list.
const STORAGE_CRATES: &[&str] =
    &["arc_swap", "bytes", "crc_fast", "libc", "memmap2", "prkdb_types", "rustix", "thiserror"];
/// Identity and lock of the directory are lines of JSON, read and written by a library.
const STORAGE_CRATES_DIR: &[&str] = &["serde", "serde_json"];
const TEST_CRATES: &[&str] = &["proptest", "tempfile"];

#[test]
fn dependencies_point_one_way() {
    let mut broken = Vec::new();
    for rule in RULES {
        for path in rust_files(rule.folder) {
            let name = shown(&path);
            if rule.except.iter().any(|except| name.starts_with(except)) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in rule.must_not_name.iter().filter(|word| names(code, word)) {
                    broken.push(format!("{name}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Returns whether a line names a module or crate, and not a longer word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let before = code[..at].chars().next_back().is_none_or(|c| !is_word(c));
        let after = code[at + word.len()..].chars().next();
        before && (word.ends_with("::") || after.is_none_or(|c| c == ':' || c == ';' || c == ','))
    })
}

#[test]
fn storage_uses_few_crates() {
    let mut foreign = Vec::new();
    for path in rust_files("src/storage") {
        let name = shown(&path);
        for line in fs::read_to_string(&path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("use ").or_else(|| line.strip_prefix("    use "))
            else {
                continue;
            };
            let used = rest.split([':', ';', ' ']).next().unwrap_or_default();
            let is_ours = ["std", "crate", "super", "self"].contains(&used);
            let is_local = used.chars().next().is_none_or(char::is_uppercase)
                || fs::exists(path.with_file_name(format!("{used}.rs"))).unwrap();
            let is_listed = STORAGE_CRATES.contains(&used)
                || TEST_CRATES.contains(&used)
                || (name.starts_with("src/storage/dir") && STORAGE_CRATES_DIR.contains(&used));
            if !is_ours && !is_local && !is_listed {
                foreign.push(format!("{name}: {used}"));
            }
        }
    }
    assert!(foreign.is_empty(), "{foreign:#?}");
}
