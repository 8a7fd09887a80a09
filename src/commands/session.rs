//! One run of a client command: its settings, its outputs, its connection.
//!
//! Turns global options, environment and configuration files into settings, opens the client when a
//! command needs it, and turns the client's errors into ours.

use std::{
    cell::Cell, error::Error as _, io::IsTerminal as _, rc::Rc, str::FromStr as _, time::Duration,
};

use clap::ValueEnum as _;
use prkdb_client::{Client, ClientError, ClientOptions, Endpoint};
use prkdb_types::ErrorCode;
use tokio::time::Instant;

use crate::commands::{
    complete,
    config::Config,
    confirm::Confirmation,
    failure::{Failure, Outcome, Result},
    output::{Format, Output, OutputOptions, UnitStyle},
    talk::{self, Talk},
    tree::{Global, Units},
};

/// The collection of the data commands where none is named.
const DEFAULT_COLLECTION: &str = "default";

/// A command's surroundings.
pub struct Session {
    /// Where results go.
    pub output: Output,
    /// Where the rest goes.
    pub talk: Talk,
    /// How confirmations are answered.
    pub confirmation: Confirmation,
    /// How the client is made.
    pub options: ClientOptions,
    /// The deadline of the whole command.
    pub timeout: Option<Duration>,
    /// Set while a write is under way, so that an interrupt can say so.
    pub is_writing: Rc<Cell<bool>>,
    /// Whether a flag names a server.
    pub is_server_named: bool,
    collection: Option<String>,
}

impl Session {
    /// Prepares a command.
    ///
    /// # Errors
    /// A wrong configuration or address is exit 2.
    pub fn new(global: &Global, is_server_named: bool) -> Result<Self> {
        let config = Config::load(global.config.as_deref(), global.profile.as_deref())?;
        let output = Output::stdout(output_options(global, &config)?);
        let talk = Talk {
            is_quiet: global.quiet,
            is_json: output.options.format.is_json(),
            is_coloured: talk::is_coloured(global.color, talk::stderr_is_terminal()),
            has_progress: has_progress(global),
        };
        let confirmation = Confirmation {
            is_yes: global.yes,
            is_silent: global.no_input,
            policy: config.confirm_policy(),
            protected_profile: config.profile.clone().filter(|_| config.is_protected()),
        };
        let timeout = global.timeout.or_else(|| config.get(|layer| layer.timeout));
        let timeout = timeout.unwrap_or(Duration::from_secs(10));
        let timeout = (!timeout.is_zero()).then_some(timeout);
        if output.options.limit == Some(u64::MAX) {
            talk.notice("--limit is more than can be counted: all rows are printed");
        }
        Ok(Self {
            output,
            talk,
            confirmation,
            options: client_options(global, &config, timeout)?,
            timeout,
            is_writing: Rc::default(),
            is_server_named,
            collection: config.get(|layer| layer.collection.clone()),
        })
    }

    /// Connects; every operation of the handle ends with the command's deadline.
    ///
    /// # Errors
    /// Exit 4 where no server answers.
    pub async fn client(&self) -> Result<Client> {
        self.client_until(self.deadline()).await
    }

    /// Returns when what begins now must have ended; `None` = no limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.timeout.map(|timeout| Instant::now() + timeout)
    }

    /// Connects with a deadline for connecting alone, for commands that stream.
    ///
    /// # Errors
    /// As [`Session::client`].
    pub async fn streaming_client(&self) -> Result<Client> {
        Ok(self.client().await?.with_deadline(None))
    }

    async fn client_until(&self, deadline: Option<Instant>) -> Result<Client> {
        let connecting = Client::connect(self.options.clone());
        let connected = match deadline {
            None => connecting.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, connecting).await {
                Ok(connected) => connected,
                Err(_) => return Err(self.deadline_passed("connect").into()),
            },
        };
        Ok(connected.map_err(|error| failure(&error))?.with_deadline(deadline))
    }

    /// The error of a command whose deadline passed before anything was sent.
    pub fn deadline_passed(&self, what: &str) -> Failure {
        let timeout = humantime::format_duration(self.timeout.unwrap_or_default());
        Failure::of(ErrorCode::Deadline, format!("{what}: no answer within {timeout}"))
    }

    /// Returns the collection a data command works on.
    pub fn collection(&self, named: &CollectionArg) -> String {
        let configured = || self.collection.clone();
        named.collection.clone().or_else(configured).unwrap_or_else(|| DEFAULT_COLLECTION.into())
    }

    /// Marks a write as under way while the future runs.
    pub async fn writing<T>(&self, write: impl Future<Output = T>) -> T {
        self.is_writing.set(true);
        let done = write.await;
        self.is_writing.set(false);
        done
    }
}

/// The collection of a data command.
#[derive(Clone, Debug, clap::Args)]
pub struct CollectionArg {
    /// Collection to work on [default: default]
    #[arg(
        short,
        long,
        alias = "topic",
        value_name = "NAME",
        env = "PRKDB_COLLECTION",
        hide_env_values = true,
        add = complete::collections()
    )]
    pub collection: Option<String>,
}

/// Turns an error of the client into one of a command.
pub fn failure(error: &ClientError) -> Failure {
    if let ClientError::Address { .. } = error {
        return Failure::usage(error.to_string());
    }
    let (code, message) = match error {
        // A status without a cause was sent by a server, not made by the transport.
        ClientError::Broken { source, operation, .. } if source.source().is_none() => {
            (code_of(source.code()), format!("{operation}: {}", source.message()))
        }
        _ => (error.code(), error.to_string()),
    };
    let mut failure = Failure::of(code, message).retryable(error.is_retryable());
    if let Some(hint) = hint(error) {
        failure = failure.hint(hint);
    }
    if let Some(outcome) = error.outcome() {
        failure = failure.outcome(match outcome {
            prkdb_client::Outcome::NotApplied => Outcome::NotApplied,
            prkdb_client::Outcome::Unknown => Outcome::Unknown,
            prkdb_client::Outcome::Applied => Outcome::Applied,
        });
    }
    match error {
        ClientError::Broken { address, .. } | ClientError::Protocol { address, .. } => {
            failure.node(address.clone())
        }
        ClientError::Refused(refusal) if !refusal.leader_address.is_empty() => {
            failure.node(refusal.leader_address.clone())
        }
        _ => failure,
    }
}

/// The codes that a break of the connection may have, where a server sent them without a detail.
fn code_of(code: tonic::Code) -> ErrorCode {
    match code {
        tonic::Code::Cancelled => ErrorCode::Deadline,
        tonic::Code::Unavailable => ErrorCode::Unreachable,
        _ => ErrorCode::Internal,
    }
}

fn hint(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Unreachable { .. } => {
            Some("start a node with: prkdb serve, or name one with: --server HOST:PORT".to_owned())
        }
        ClientError::Refused(refusal) if !refusal.hint.is_empty() => Some(refusal.hint.clone()),
        ClientError::UnknownOutcome { .. } => {
            Some("read the key to see whether it was applied".to_owned())
        }
        _ => None,
    }
}

fn output_options(global: &Global, config: &Config) -> Result<OutputOptions> {
    let is_terminal = std::io::stdout().is_terminal();
    let format = match (global.output, config.get(|layer| layer.output.clone())) {
        (Some(format), _) => format,
        (None, Some(name)) => Format::from_str(&name, true).map_err(|_| {
            Failure::usage(format!("configuration: unknown output format '{name}'"))
        })?,
        (None, None) if is_terminal => Format::Table,
        (None, None) => Format::Plain,
    };
    let units = match (global.units, format) {
        (Units::Auto, Format::Table) => UnitStyle::Readable,
        _ => UnitStyle::Raw,
    };
    Ok(OutputOptions {
        format,
        has_headers: !global.no_headers,
        columns: global.columns.clone(),
        sort: global.sort.as_deref().map(sort_key).transpose()?,
        limit: global.limit,
        units,
        time: global.time,
        is_coloured: talk::is_coloured(global.color, is_terminal),
        is_quiet: global.quiet,
        has_int_strings: global.json_int_strings,
        width: terminal_width(),
    })
}

fn sort_key(text: &str) -> Result<(String, bool)> {
    match text.split_once(':') {
        None => Ok((text.to_owned(), false)),
        Some((column, "asc")) => Ok((column.to_owned(), false)),
        Some((column, "desc")) => Ok((column.to_owned(), true)),
        Some((_, other)) => {
            let message = format!("--sort: unknown direction '{other}'");
            Err(Failure::usage(message).hint("one of: asc, desc").into())
        }
    }
}

/// `COLUMNS` wins over the terminal, as it does elsewhere.
fn terminal_width() -> Option<u16> {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| u16::from_str(&text).ok());
    columns.or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0))
}

fn has_progress(global: &Global) -> bool {
    !global.quiet
        && !global.no_progress
        && talk::stderr_is_terminal()
        && std::env::var_os("CI").is_none()
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

fn client_options(
    global: &Global,
    config: &Config,
    timeout: Option<Duration>,
) -> Result<ClientOptions> {
    let named = if global.servers.is_empty() {
        config.get(|layer| layer.servers.clone()).unwrap_or_default()
    } else {
        global.servers.clone()
    };
    let mut servers = Vec::new();
    for address in &named {
        servers.push(Endpoint::parse(address).map_err(|error| failure(&error))?);
    }
    let defaults = ClientOptions::default();
    let connect_timeout =
        global.connect_timeout.or_else(|| config.get(|layer| layer.connect_timeout));
    Ok(ClientOptions {
        servers: if servers.is_empty() { defaults.servers } else { servers },
        timeout,
        connect_timeout: connect_timeout.unwrap_or(defaults.connect_timeout),
        retries: global
            .retries
            .or_else(|| config.get(|layer| layer.retries))
            .unwrap_or(defaults.retries),
        connections: defaults.connections,
        transport: defaults.transport,
        clock: defaults.clock,
    })
}
