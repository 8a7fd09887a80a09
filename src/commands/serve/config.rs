//! From flags to the configuration of a node.
//!
//! Adds what one flag says about another (the port of HTTP, the limit of messages) and what the
//! machine says; what is allowed is the node's to check.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};

use prkdb_types::Partitioner;

use super::args::Args;
use crate::{
    commands::{
        collection::PartitionerArg,
        failure::{Failure, Result, without_numbers},
        shell::quoted,
        values,
    },
    node::{Config, NodeError, config::HttpListen},
};

const MIB: usize = 1 << 20;
/// Between the ports of gRPC and HTTP.
const HTTP_PORT_DISTANCE: u16 = 1000;

/// Returns the configuration that flags ask for, checked.
///
/// # Errors
/// 2 with everything that is wrong, 13 where a name cannot be resolved.
pub(super) fn config(args: &Args) -> Result<Config> {
    let node_id = args.node_id.unwrap_or(1);
    let data_dir =
        args.data_dir.clone().unwrap_or_else(|| format!("./prkdb-data/node-{node_id}").into());
    let mut config = Config::new(data_dir, memory_bytes());
    config.node_id = node_id;
    config.creates_parent = args.data_dir.is_none();
    if let Some(listen) = &args.listen {
        config.listen = resolve(listen)?;
    }
    config.advertise.clone_from(&args.advertise);
    config.http = http(args, config.listen)?;
    set(&mut config.shards, args.shards);
    set(&mut config.partitions, args.partitions);
    set(&mut config.segment_bytes, args.segment_bytes);
    set(&mut config.checkpoint_bytes, args.checkpoint_bytes);
    set(&mut config.heartbeat, args.heartbeat);
    set(&mut config.election_timeout, args.election_timeout);
    set(&mut config.shutdown_timeout, args.shutdown_timeout);
    set(&mut config.index_memory, args.index_memory);
    config.partitioner = match args.partitioner {
        Some(PartitionerArg::Kafka) => Partitioner::Kafka,
        Some(PartitionerArg::Ring) => Partitioner::Ring,
        None => Partitioner::default_for(config.partitions),
    };
    config.allow_insecure = args.allow_insecure;
    set(&mut config.max_key, args.max_key.map(in_memory));
    set(&mut config.max_value, args.max_value.map(in_memory));
    // A value above the default limit of messages raises that limit where no flag sets it.
    let needed = config.max_value.saturating_add(MIB);
    config.max_message = args.max_message.map_or(config.max_message.max(needed), in_memory);
    set(&mut config.max_connections, args.max_connections.map(|count| in_memory(count.into())));
    config.check().map_err(|error| failure(&error))?;
    Ok(config)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn in_memory(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// The memory of the machine.
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let resolved = address.to_socket_addrs().and_then(|mut found| {
        found.next().ok_or_else(|| std::io::Error::other("the name has no address"))
    });
    resolved.map_err(|error| Failure::io(format_args!("resolve {address}"), &error).into())
}

/// The address of HTTP: as given, or beside the port of `--listen`.
fn http(args: &Args, listen: SocketAddr) -> Result<HttpListen> {
    match args.http.as_deref() {
        Some("none") => return Ok(HttpListen::Off),
        Some(address) => {
            let address = values::listen_address(address)
                .map_err(|why| Failure::usage(format!("--http: {why}")))?;
            return Ok(HttpListen::At(resolve(&address)?));
        }
        None => {}
    }
    let host =
        if listen.ip().is_loopback() { listen.ip() } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let port = match (args.listen.is_some(), listen.port()) {
        (false, _) => 9091,
        (true, 0) => 0,
        (true, port) => port.checked_add(HTTP_PORT_DISTANCE).ok_or_else(|| {
            let message = format!(
                "--http: the port of --listen {listen} + {HTTP_PORT_DISTANCE} is above 65535"
            );
            Failure::usage(message).hint("pass --http HOST:PORT, or --http none")
        })?,
    };
    Ok(HttpListen::At(SocketAddr::new(host, port)))
}

/// Turns the error of a node into one of a command.
pub(super) fn failure(error: &NodeError) -> Failure {
    let failure = match error {
        NodeError::Config { .. } => Failure::usage(error.to_string()),
        error => Failure::of(error.code(), without_numbers(&error.to_string())),
    };
    match (error.damaged(), error.hint()) {
        (Some(dir), _) => {
            let dir = quoted(dir.as_os_str());
            failure.hint(format!("see what is damaged: prkdb wal verify --data-dir {dir}"))
        }
        (None, "") => failure,
        (None, hint) => failure.hint(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure::Stop;

    fn listen(address: &str) -> Args {
        Args { listen: Some(address.to_owned()), ..Args::default() }
    }

    fn refused(args: &Args) -> (String, String) {
        let Err(Stop::Failed(failure)) = config(args) else { panic!("accepted") };
        assert_eq!(failure.exit(), 2);
        (failure.message(), failure.hint_text().unwrap_or_default())
    }

    fn http_of(args: &Args) -> String {
        match config(args).unwrap().http {
            HttpListen::Off => "none".to_owned(),
            HttpListen::At(address) => address.to_string(),
        }
    }

    #[test]
    fn http_stands_beside_the_port_of_listen() {
        for (address, expected) in [
            ("127.0.0.1:9090", "127.0.0.1:10090"),
            ("127.0.0.2:0", "127.0.0.2:0"),
            ("[::1]:7000", "[::1]:8000"),
        ] {
            assert_eq!(http_of(&listen(address)), expected);
        }
        assert_eq!(http_of(&Args::default()), "127.0.0.1:9091");
        assert_eq!(http_of(&Args { http: Some("none".into()), ..Args::default() }), "none");
        assert!(refused(&listen("127.0.0.1:65000")).0.contains("above 65535"));
    }

    #[test]
    fn a_public_address_needs_a_word_and_a_name() {
        assert_eq!(refused(&listen("10.0.0.1:9090")).1, "--allow-insecure");
        let open = Args { allow_insecure: true, ..listen("0.0.0.0:9090") };
        assert_eq!(refused(&open).1, "--advertise HOST:PORT");
        let named = Args { advertise: Some("db1:9090".into()), ..open };
        assert_eq!(http_of(&named), "127.0.0.1:10090");
    }

    #[test]
    fn a_large_value_raises_the_limit_of_messages() {
        let args = Args { max_value: Some(16 << 20), ..Args::default() };
        assert_eq!(config(&args).unwrap().max_message, 17 * MIB);
        let args = Args { max_message: Some(8 << 20), max_value: Some(8 << 20), ..Args::default() };
        assert!(refused(&args).0.contains("max-message"));
    }
}
