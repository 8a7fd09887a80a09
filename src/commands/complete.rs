//! Completion that asks: what a shell gets when it calls the program to complete a line.
//!
//! Promises: an answer within a third of a second, nothing on stderr, and no answer instead of an error.
//! The names of collections are asked for once in a few seconds and kept in the cache directory.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use clap::FromArgMatches as _;
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};
use etcetera::{BaseStrategy as _, base_strategy::Xdg};
use prkdb_client::{Client, ClientOptions, Listing};
use prkdb_types::crc32c;

use crate::commands::{
    exit,
    run::runtime,
    session::Session,
    tree::{Global, cli},
};

/// How long asking may take.
const BUDGET: Duration = Duration::from_millis(300);
/// How long an answer is good for.
const FRESH_MS: i64 = 5000;
/// The most that is read of a cache: names of thousands of collections.
const CACHE_BYTES_MAX: u64 = 4 << 20;

/// Answers a shell that asks for completions, before anything is written to stdout. Returns the exit code,
/// or nothing where this is no such call.
pub fn hook() -> Option<u8> {
    let answered = CompleteEnv::with_factory(cli)
        .bin("prkdb")
        .completer("prkdb")
        .try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref());
    match answered {
        Ok(false) => None,
        Ok(true) => Some(exit::OK),
        // An unknown shell, or nobody who reads.
        Err(_) => Some(exit::USAGE),
    }
}

/// Completes the name of a collection.
pub(crate) fn collections() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = ask().unwrap_or_default();
        names.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// The names of the collections; nothing where they cannot be had in time.
fn ask() -> Option<Vec<String>> {
    let options = options()?;
    let now_ms = options.clock.now_ms();
    let cache = cache(&options);
    if let Some(names) = cache.as_deref().and_then(|path| cached(path, now_ms)) {
        return Some(names);
    }
    let asking = async {
        let client = Client::connect(options).await.ok()?;
        let states = client.list_collections(Listing::Named).await.ok()?;
        let name = |state: prkdb_client::wire::CollectionState| Some(state.collection?.name);
        let mut names: Vec<String> = states.into_iter().filter_map(name).collect();
        names.sort();
        Some(names)
    };
    let runtime = runtime().ok()?;
    let names =
        runtime.block_on(async { tokio::time::timeout(BUDGET, asking).await.ok().flatten() })?;
    if let Some(path) = cache {
        // Without a cache it is asked for again.
        let _kept = keep(&path, &names);
    }
    Some(names)
}

/// How the line that is completed would reach its server.
fn options() -> Option<ClientOptions> {
    // What stands before `--` is for the hook.
    let line: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let matches = cli().ignore_errors(true).try_get_matches_from(line).ok();
    let global = matches.and_then(|matches| Global::from_arg_matches(&matches).ok())?;
    let session = Session::new(&global, false).ok()?;
    Some(ClientOptions {
        timeout: Some(BUDGET),
        connect_timeout: BUDGET,
        retries: 0,
        ..session.options
    })
}

/// The file for the servers of a line; nothing where there is no home.
fn cache(options: &ClientOptions) -> Option<PathBuf> {
    let servers: Vec<String> = options.servers.iter().map(|server| format!("{server:?}")).collect();
    let name = format!("collections-{:08x}", crc32c(servers.join(",").as_bytes()));
    Some(Xdg::new().ok()?.cache_dir().join("prkdb").join(name))
}

fn cached(path: &Path, now_ms: i64) -> Option<Vec<String>> {
    let metadata = fs::metadata(path).ok()?;
    let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let age_ms = now_ms.checked_sub(i64::try_from(written.as_millis()).ok()?)?;
    if metadata.len() > CACHE_BYTES_MAX || !(0..FRESH_MS).contains(&age_ms) {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// Another shell sees the old file or the new one.
fn keep(path: &Path, names: &[String]) -> Option<()> {
    let dir = path.parent()?;
    fs::create_dir_all(dir).ok()?;
    let mut file = tempfile::Builder::new().prefix(".prkdb-").tempfile_in(dir).ok()?;
    for name in names {
        writeln!(file, "{name}").ok()?;
    }
    file.persist(path).ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_read_while_it_is_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prkdb").join("collections");
        let names = ["a".to_owned(), "b".to_owned()];
        keep(&path, &names).unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let written = written.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now_ms = i64::try_from(written).unwrap();
        assert_eq!(cached(&path, now_ms).unwrap(), names);
        assert_eq!(cached(&path, now_ms + FRESH_MS), None);
        assert_eq!(cached(&path, now_ms - 1), None, "a clock that was put back");
        assert_eq!(cached(&dir.path().join("nothing"), now_ms), None);
    }
}
