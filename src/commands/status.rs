//! `prkdb status`: every node, what is wrong, and an exit code that says how bad it is.

use prkdb_client::{Client, ClientOptions, Endpoint, wire};

use crate::commands::{
    exit,
    failure::{Failure, Result, Stop},
    output::{Cell, Column, Format, Kind, Listing, Object},
    session::{self, Session},
    watch::{WatchArgs, repeat},
};

const EXAMPLES: &str = "\
Examples:
  prkdb status
  prkdb status -o json
  prkdb status --fail-on critical
  prkdb status --node 1
  prkdb status --watch 5s";

const NODES: Listing = Listing {
    schema: "prkdb.status/1",
    columns: &[
        Column::new("NODE", "node", Kind::Number),
        Column::new("ADDRESS", "address", Kind::Text),
        Column::new("ROLE", "role", Kind::Text),
        Column::new("HEALTH", "health", Kind::Text),
        Column::new("VERSION", "version", Kind::Text),
        Column::new("SHARDS", "shards", Kind::Number),
        Column::new("LEADS", "leads", Kind::Number),
        Column::new("LAG", "lag", Kind::Number),
        Column::new("DISK-USED", "disk_used", Kind::Size),
        Column::new("DISK-FREE", "disk_free", Kind::Size),
        Column::new("UPTIME", "uptime", Kind::Duration),
        Column::new("ERROR", "error", Kind::Text),
    ],
    empty: "(no nodes)",
};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// From which state on the exit code is not 0
    #[arg(long, value_name = "STATE", value_enum, default_value = "degraded")]
    fail_on: FailOn,
    /// Only this node: its id, or HOST:PORT
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Something is wrong: 11, or 10 where it is critical.
    Degraded,
    /// Requests fail: 10.
    Critical,
    /// Never.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Healthy,
    Degraded,
    Critical,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }

    fn of(severity: wire::Severity) -> Self {
        match severity {
            wire::Severity::Unspecified => Self::Healthy,
            wire::Severity::Degraded => Self::Degraded,
            wire::Severity::Critical => Self::Critical,
        }
    }
}

/// A node, and what it answered.
struct Asked {
    id: u64,
    address: String,
    answer: std::result::Result<wire::StatusReply, Failure>,
}

/// Runs `status`.
///
/// # Errors
/// 10 where the cluster is critical, 11 where it is degraded, 4 where no node answers.
pub async fn run(session: &mut Session, args: Args) -> Result {
    repeat(session, args.watch, async |session| show(session, &args).await).await
}

async fn show(session: &mut Session, args: &Args) -> Result {
    session.output.begin(NODES)?;
    let client = session.client().await?;
    let first = client.status().await.map_err(|error| session::failure(&error))?;
    let mut asked = ask_others(session, &client, first).await;
    if let Some(node) = &args.node {
        asked.retain(|asked| asked.id.to_string() == *node || asked.address == *node);
        if asked.is_empty() {
            return Err(Failure::usage(format!("--node: no node '{node}' in the cluster")).into());
        }
    }
    let reasons = reasons(&asked);
    let state = reasons.iter().map(|reason| State::of(reason.severity())).max();
    let state = state.unwrap_or(State::Healthy);
    print(session, &asked, &reasons, state)?;
    let code = match (state, args.fail_on) {
        (State::Critical, FailOn::Degraded | FailOn::Critical) => exit::UNHEALTHY,
        (State::Degraded, FailOn::Degraded) => exit::DEGRADED,
        _ => return Ok(()),
    };
    session.output.flush()?;
    Err(Stop::Quiet(code))
}

/// Asks the nodes that the first one named, all at once.
async fn ask_others(session: &Session, client: &Client, first: wire::StatusReply) -> Vec<Asked> {
    let own = first.node.clone().unwrap_or_default();
    let others = first.nodes.clone().into_iter().filter(|node| node.id != own.id);
    let asking = others.map(async |node| {
        let answer = ask(&session.options, &node.address).await;
        Asked { id: node.id, address: node.address, answer }
    });
    let mut asked = futures_util::future::join_all(asking).await;
    let address = if own.address.is_empty() { client.server() } else { own.address };
    asked.push(Asked { id: own.id, address, answer: Ok(first) });
    asked.sort_by_key(|asked| asked.id);
    asked
}

async fn ask(
    options: &ClientOptions,
    address: &str,
) -> std::result::Result<wire::StatusReply, Failure> {
    let failed = |error| session::failure(&error);
    let server = Endpoint::parse(address).map_err(failed)?;
    let options = ClientOptions { servers: vec![server], retries: 0, ..options.clone() };
    let client = Client::connect(options).await.map_err(failed)?;
    client.status().await.map_err(failed)
}

/// What the nodes say is wrong, and which do not answer; each thing once.
fn reasons(asked: &[Asked]) -> Vec<wire::Reason> {
    let mut all: Vec<wire::Reason> = Vec::new();
    for node in asked {
        let found = match &node.answer {
            Ok(reply) => reply.reasons.clone(),
            Err(failure) => vec![wire::Reason {
                severity: wire::Severity::Degraded.into(),
                code: "node_down".to_owned(),
                node: Some(node.id),
                message: format!(
                    "node {} ({}) does not answer: {}",
                    node.id,
                    node.address,
                    failure.message()
                ),
                ..Default::default()
            }],
        };
        for reason in found {
            if !all.contains(&reason) {
                all.push(reason);
            }
        }
    }
    all.sort_by_key(|reason| std::cmp::Reverse(State::of(reason.severity())));
    all
}

fn row(node: &Asked, reasons: &[wire::Reason]) -> Vec<Cell> {
    let mut cells = vec![Cell::Number(node.id), Cell::Text(node.address.clone())];
    let Some(status) =
        node.answer.as_ref().ok().map(|reply| reply.node.clone().unwrap_or_default())
    else {
        let error = node.answer.as_ref().err().map(Failure::message).unwrap_or_default();
        cells.extend([Cell::Absent, Cell::from("down")]);
        cells.extend(std::iter::repeat_n(Cell::Absent, 7));
        cells.push(Cell::Text(error));
        return cells;
    };
    let own = reasons.iter().filter(|reason| reason.node == Some(node.id));
    let health = match own.map(|reason| State::of(reason.severity())).max() {
        None | Some(State::Healthy) => "ok",
        Some(state) => state.name(),
    };
    cells.extend([
        match status.role() {
            wire::Role::Unspecified => Cell::Absent,
            wire::Role::Leader => Cell::from("leader"),
            wire::Role::Follower => Cell::from("follower"),
            wire::Role::Learner => Cell::from("learner"),
        },
        Cell::from(health),
        Cell::Text(status.version),
        Cell::Number(u64::from(status.shards)),
        Cell::Number(u64::from(status.leads)),
        Cell::Number(status.lag),
        Cell::Size(status.disk_used_bytes),
        Cell::Size(status.disk_free_bytes),
        Cell::Duration(status.uptime_ms),
        Cell::Absent,
    ]);
    cells
}

/// The cluster's id, number of shards and version, of the first node that answered.
fn cluster(asked: &[Asked]) -> (String, u64, String) {
    let reply =
        asked.iter().find_map(|node| node.answer.as_ref().ok()).cloned().unwrap_or_default();
    let node = reply.node.unwrap_or_default();
    (hex::encode(&reply.cluster_id), u64::from(node.shards), node.version)
}

fn print(session: &mut Session, asked: &[Asked], reasons: &[wire::Reason], state: State) -> Result {
    let rows: Vec<Vec<Cell>> = asked.iter().map(|node| row(node, reasons)).collect();
    let (id, shards, version) = cluster(asked);
    match session.output.options.format {
        Format::Json => {
            let time = session.output.options.time;
            let mut about = Object::default();
            about
                .add("id", id)
                .add("state", state.name())
                .add("shards", shards)
                .add("version", version);
            let nodes: Vec<Object> = rows
                .iter()
                .map(|row| {
                    let mut object = Object::default();
                    for (cell, column) in row.iter().zip(NODES.columns) {
                        cell.add_to(&mut object, column, time);
                    }
                    object
                })
                .collect();
            let reasons: Vec<Object> = reasons.iter().map(reason_object).collect();
            let mut document = Object::document("prkdb.status/1");
            document.add("cluster", about).add("nodes", nodes).add("reasons", reasons);
            session.output.document(&document)
        }
        Format::Table => {
            let head = format!(
                "CLUSTER   id {id}   STATE {}   SHARDS {shards}   VERSION {version}",
                state.name()
            );
            session.output.line(&head)?;
            session.output.list(NODES, rows, &session.talk)?;
            if !reasons.is_empty() {
                session.output.line("REASONS")?;
            }
            for reason in reasons {
                let severity = State::of(reason.severity()).name();
                let hint = if reason.hint.is_empty() {
                    String::new()
                } else {
                    format!("   hint: {}", reason.hint)
                };
                let line = format!("{severity:<9} {:<17} {}{hint}", reason.code, reason.message);
                session.output.line(&crate::commands::output::one_line(&line))?;
            }
            Ok(())
        }
        _ => {
            session.output.list(NODES, rows, &session.talk)?;
            for reason in reasons {
                let severity = State::of(reason.severity()).name();
                session.talk.notice(&format!("{severity}: {}: {}", reason.code, reason.message));
            }
            Ok(())
        }
    }
}

fn reason_object(reason: &wire::Reason) -> Object {
    let mut object = Object::default();
    object
        .add("severity", State::of(reason.severity()).name())
        .add("code", reason.code.as_str())
        .add("node", reason.node)
        .add("shard", reason.shard)
        .add("message", reason.message.as_str())
        .add("hint", Some(reason.hint.as_str()).filter(|hint| !hint.is_empty()));
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, reasons: Vec<wire::Reason>) -> Asked {
        let answer = wire::StatusReply { reasons, ..Default::default() };
        Asked { id, address: format!("n{id}:9090"), answer: Ok(answer) }
    }

    fn reason(severity: wire::Severity, code: &str) -> wire::Reason {
        wire::Reason { severity: severity.into(), code: code.into(), ..Default::default() }
    }

    #[test]
    fn a_reason_that_two_nodes_give_is_told_once_and_the_worst_comes_first() {
        let low = reason(wire::Severity::Degraded, "disk_low");
        let full = reason(wire::Severity::Critical, "disk_full");
        let found =
            reasons(&[node(1, vec![low.clone()]), node(2, vec![low.clone(), full.clone()])]);
        assert_eq!(found, vec![full, low]);
    }

    #[test]
    fn a_node_that_does_not_answer_is_a_reason_and_a_row() {
        let answer = Err(Failure::unhealthy("connection refused"));
        let asked = [node(1, vec![]), Asked { id: 2, address: "n2:9090".into(), answer }];
        let found = reasons(&asked);
        assert_eq!(found[0].code, "node_down");
        assert!(found[0].message.contains("n2:9090"));
        let cells = row(&asked[1], &found);
        assert_eq!(cells.len(), NODES.columns.len());
        assert_eq!(cells[3], Cell::from("down"));
        assert_eq!(row(&asked[0], &found).len(), NODES.columns.len());
    }
}
