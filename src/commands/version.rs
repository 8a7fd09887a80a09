//! `prkdb version`: of this program and, where a server is named, of that one.

use std::sync::LazyLock;

use crate::commands::{
    failure::Result,
    output::Object,
    session::{self, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb version
  prkdb version --server 127.0.0.1:9090 -o json";

/// The version of the package.
pub const PACKAGE: &str = env!("CARGO_PKG_VERSION");
/// The commit and its date, where the build says them.
const COMMIT: Option<&str> = option_env!("PRKDB_COMMIT");
const DATE: Option<&str> = option_env!("PRKDB_COMMIT_DATE");

/// Version, commit and target, as `--version` prints them after the name.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = [COMMIT, DATE].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let separator = if commit.is_empty() { "" } else { ", " };
    format!("{PACKAGE} ({commit}{separator}{})", target())
});

/// Returns architecture and system, such as `x86_64-linux`.
pub fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, about = "Print the version, with --server also that of a server")]
pub struct Args {}

/// Runs `version`.
///
/// # Errors
/// 4 where a server is named and none answers.
pub async fn run(session: &mut Session, _: Args) -> Result {
    session.output.refuse_special_formats()?;
    let server = if session.is_server_named {
        let client = session.client().await?;
        let reply = client.version().await.map_err(|error| session::failure(&error))?;
        Some((client.server(), reply))
    } else {
        None
    };
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.version/1");
        document.add("version", PACKAGE).add("commit", COMMIT).add("target", target());
        let server = server.map(|(address, reply)| {
            let mut object = Object::default();
            object
                .add("address", address)
                .add("version", reply.version)
                .add("commit", Some(reply.commit).filter(|commit| !commit.is_empty()))
                .add("target", reply.target);
            object
        });
        document.add("server", server);
        return session.output.document(&document);
    }
    session.output.line(&format!("prkdb {}", *VERSION))?;
    match server {
        Some((address, reply)) => {
            let line = format!("server {} ({}) at {address}", reply.version, reply.target);
            session.output.line(&crate::commands::output::one_line(&line))
        }
        None => Ok(()),
    }
}
