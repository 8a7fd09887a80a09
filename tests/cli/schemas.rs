//! The fields of every JSON document, in order, with their types: `golden/schemas.txt`.

use std::{fmt::Write as _, fs};

use serde_json::Value;

use crate::{
    directory::used,
    generated::{check, root},
    serve::Node,
};

/// Lists the fields of a value; of a list, those of its first item.
fn shape(value: &Value, path: &str, text: &mut String) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    if !path.is_empty() {
        writeln!(text, "  {path}: {kind}").unwrap();
    }
    match value {
        Value::Array(items) => {
            if let Some(first) = items.first() {
                shape(first, &format!("{path}[]"), text);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                shape(field, &format!("{path}{dot}{name}"), text);
            }
        }
        _ => {}
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a line for each document")]
fn documents_have_the_fields_they_always_had() {
    let node = Node::start();
    let dir = node.home.dir.path();
    fs::write(dir.join("d.txt"), "a,1\nb,2\n").unwrap();
    fs::write(dir.join("bad.txt"), "a,1\nbad\n").unwrap();
    fs::write(dir.join("e.jsonl"), "{\"key\":\"k\",\"value\":1,\"headers\":[[\"h\",\"v\"]]}\n")
        .unwrap();
    fs::write(dir.join("bad.jsonl"), "{}\n").unwrap();
    fs::rename(used().dir.path().join("d"), dir.join("s")).unwrap();
    let mut text =
        "The fields of the JSON that each command prints, in the order of their names,\n\
        with their types. What stands here stays: a field is added, never renamed or removed.\n"
            .to_owned();
    for (line, code) in [
        ("put k v", 0),
        ("get k", 0),
        ("get k --with-meta", 0),
        ("get k nope", 3),
        ("put t v --ttl 1h", 0),
        ("get t --with-meta", 0),
        ("ttl t", 0),
        ("expire t --in 1h", 0),
        ("persist t", 0),
        ("scan", 0),
        ("scan --keys-only", 0),
        ("scan --count", 0),
        ("delete k", 0),
        ("batch-put d.txt", 0),
        ("batch-put bad.txt", 8),
        ("produce c e.jsonl --create", 0),
        ("produce c bad.jsonl", 1),
        ("produce c e.jsonl --print-offsets", 0),
        ("consume c --exit-at-end", 0),
        ("consumer list", 0),
        ("delete --prefix a --dry-run", 0),
        ("delete --prefix a --yes", 0),
        ("collection create c", 0),
        ("collection create c", 0),
        ("collection list", 0),
        ("collection describe c", 0),
        ("collection alter c --partitions 3", 0),
        ("collection truncate c --before 1 --yes", 0),
        ("collection drop c --confirm c --if-exists", 0),
        ("backup create b.backup", 7),
        ("backup verify b.backup", 0),
        ("backup inspect b.backup", 0),
        ("backup restore b.backup --data-dir q", 9),
        ("snapshot create", 0),
        ("snapshot list", 0),
        ("snapshot inspect d/shard-0000000001", 0),
        ("status", 0),
        ("health", 0),
        ("metrics --match ^prkdb_keys", 0),
        ("metrics names", 0),
        ("version", 0),
        ("doctor --data-dir none", 0),
        ("wal info --data-dir s --shard 1", 0),
        ("wal dump --data-dir s --shard 1 --kind entry", 0),
        ("wal verify --data-dir s", 0),
        ("wal repair --data-dir s --to r", 0),
        ("wal truncate --data-dir s --shard 1 --after 99 --in-place", 0),
    ] {
        for format in ["json", "ndjson"] {
            let said = node.run(&format!("{line} -o {format}"));
            // What `doctor` finds is the machine's.
            let is_found = line.starts_with("doctor") && [10, 11].contains(&said.code);
            assert!(
                is_found || [0, code].contains(&said.code),
                "{line} -o {format}\n{}",
                said.stderr
            );
            let printed = said.text();
            let document = match format {
                "json" => printed.as_str(),
                _ => printed.lines().next().unwrap_or("null"),
            };
            let document: Value = serde_json::from_str(document).unwrap();
            writeln!(text, "\nprkdb {line} -o {format}").unwrap();
            shape(&document, "", &mut text);
        }
    }
    let missing = node.run("get nope -o json");
    let error: Value = serde_json::from_str(missing.stderr.lines().last().unwrap()).unwrap();
    text.push_str("\nan error, on stderr\n");
    shape(&error, "", &mut text);
    check(&root().join("tests/cli/golden/schemas.txt"), text.as_bytes());
}
