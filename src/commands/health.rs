//! `prkdb health`: does the node serve, in one line and one exit code.

use std::time::Duration;

use prkdb_client::{Client, ClientError, ClientOptions, Endpoint, Get, Health};
use prkdb_types::{ErrorCode, ErrorKind};
use tokio::time::Instant;

use crate::commands::{
    failure::{Failure, Result},
    output::Object,
    session::{self, CollectionArg, Session},
    values,
};

const EXAMPLES: &str = "\
Examples:
  prkdb health
  prkdb health --live
  prkdb health --ready --wait 30s";

/// Between two attempts of `--wait`.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only whether the process answers
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Whether it serves, proven by a linearizable read; the default
    #[arg(long)]
    ready: bool,
    /// Ask this node: HOST:PORT
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Try again, whatever fails, until this time has passed; then exit 5
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    wait: Option<Duration>,
}

/// What a node answered.
enum Answer {
    Yes,
    No(String),
}

/// Runs `health`.
///
/// # Errors
/// 10 where the node answers that it does not serve, 4 where it does not answer, 5 after `--wait`.
pub async fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    let mut options = session.options.clone();
    if let Some(node) = &args.node {
        options.servers = vec![Endpoint::parse(node).map_err(|error| session::failure(&error))?];
    }
    let answer = match args.wait {
        None => ask(session, &options, &args).await.map_err(|error| session::failure(&error))?,
        Some(wait) => wait_for(session, &options, &args, wait).await?,
    };
    let word = if args.live { "live" } else { "ready" };
    match answer {
        Answer::Yes => print(session, word, None),
        Answer::No(reason) => {
            print(session, word, Some(&reason))?;
            session.output.flush()?;
            Err(Failure::unhealthy(format!("not {word}: {reason}")).into())
        }
    }
}

async fn wait_for(
    session: &Session,
    options: &ClientOptions,
    args: &Args,
    wait: Duration,
) -> Result<Answer> {
    let deadline = Instant::now() + wait;
    let mut last = "no answer".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, ask(session, options, args)).await {
            Ok(Ok(Answer::Yes)) => return Ok(Answer::Yes),
            Ok(Ok(Answer::No(reason))) => last = reason,
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => {}
        }
        if Instant::now() + PAUSE >= deadline {
            let waited = humantime::format_duration(wait);
            let message = format!("not ready after {waited}: {last}");
            return Err(Failure::of(ErrorCode::Deadline, message).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(
    session: &Session,
    options: &ClientOptions,
    args: &Args,
) -> std::result::Result<Answer, ClientError> {
    let client = Client::connect(options.clone()).await?;
    if client.health("").await? == Health::NotServing && args.live {
        return Ok(Answer::No("the process is stopping".to_owned()));
    }
    if args.live {
        return Ok(Answer::Yes);
    }
    read(session, &client).await
}

/// A key of the default collection is read; that there is none is an answer like any other.
async fn read(session: &Session, client: &Client) -> std::result::Result<Answer, ClientError> {
    let collection = session.collection(&CollectionArg { collection: None });
    match client.get(Get::new(collection, "health")).await {
        Ok(_) => Ok(Answer::Yes),
        Err(error) if error.code() == ErrorCode::Unreachable => Err(error),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(Answer::Yes),
            ErrorKind::Unavailable | ErrorKind::Retry => Ok(Answer::No(error.to_string())),
            _ => Err(error),
        },
    }
}

fn print(session: &mut Session, word: &str, reason: Option<&str>) -> Result {
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.health/1");
        document.add("check", word).add("ok", reason.is_none()).add("reason", reason);
        return session.output.document(&document);
    }
    match reason {
        None => session.output.line(word),
        Some(_) => Ok(()),
    }
}
