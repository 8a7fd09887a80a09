//! Pages that are made from the program are the ones that are committed.

use std::{fs, path::Path};

use prkdb::commands::{man, reference};

/// Compares a file with what it should be; `UPDATE=1` writes it.
pub(crate) fn check(path: &Path, expected: &[u8]) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, expected).unwrap();
    }
    let found = fs::read(path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is not what the program makes: UPDATE=1 writes it",
        path.display()
    );
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn manual_pages_are_fresh() {
    let pages = man::pages().unwrap();
    for page in &pages {
        check(&root().join("man").join(&page.file), &page.text);
    }
    let committed = fs::read_dir(root().join("man")).unwrap().count();
    assert_eq!(committed, pages.len(), "a page of a command that does not exist");
}

#[test]
fn every_manual_page_has_its_sections() {
    for page in man::pages().unwrap() {
        let text = String::from_utf8(page.text).unwrap();
        for section in ["NAME", "SYNOPSIS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES"] {
            let has = |line: &str| {
                line == format!(".SH {section}") || line == format!(".SH \"{section}\"")
            };
            assert!(text.lines().any(has), "{}: {section}", page.file);
        }
    }
}

#[test]
fn reference_pages_are_fresh() {
    let docs = root().join("docs/reference");
    check(&docs.join("cli.md"), reference::cli_page().as_bytes());
    check(&docs.join("errors.md"), reference::errors_page().as_bytes());
    let exposition = prkdb::node::metrics::Metrics::new().exposition();
    check(&docs.join("metrics.md"), reference::metrics_page(&exposition).as_bytes());
}
