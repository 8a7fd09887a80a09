//! Addresses of servers as people write them.
//!
//! Owns the parsing of `host`, `host:port`, `[v6]:port` and `http://…`, and says which part is wrong.
//! Resolves no names and opens no connections.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::error::ClientError;

/// The port of a server whose address names none.
pub const DEFAULT_PORT: u16 = 9090;

/// The longest host name, as in RFC 1035.
const HOST_BYTES_MAX: usize = 253;

/// Where a server listens.
///
/// ```
/// use prkdb_client::Endpoint;
/// assert_eq!(Endpoint::parse("db1.example")?.to_string(), "db1.example:9090");
/// assert_eq!(Endpoint::parse("http://[::1]:7000/")?.to_string(), "[::1]:7000");
/// # Ok::<(), prkdb_client::ClientError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Parses `host`, `host:port`, `[v6]:port`, a bare IPv6 address, or any of them after `http://`.
    ///
    /// # Errors
    /// `Invalid`, quoting the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let refuse = |reason: String| ClientError::Address { address: text.to_owned(), reason };
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(refuse("this version has no TLS; use 'http://'".to_owned()));
            }
            Some((scheme, _)) => {
                return Err(refuse(format!("scheme '{scheme}' is not 'http'")));
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_port(authority).map_err(refuse)?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => parse_port(digits).map_err(refuse)?,
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// Returns the host without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address as a URI.
    pub(crate) fn uri(&self) -> String {
        format!("http://{self}")
    }
}

impl Default for Endpoint {
    /// The server of this machine, `127.0.0.1:9090`.
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }
    }
}

impl FromStr for Endpoint {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// Separates host and port; the host comes back checked and without brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) =
            rest.split_once(']').ok_or_else(|| format!("'[{rest}' has no closing ']'"))?;
        parse_v6(host)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(format!("'{after}' after ']' is not ':PORT'")),
        };
    }
    if authority.matches(':').count() > 1 {
        // Several colons without brackets are an address or nothing: where a port began cannot be told.
        parse_v6(authority)?;
        return Ok((authority, None));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    check_host(host)?;
    Ok((host, port))
}

fn parse_v6(host: &str) -> Result<(), String> {
    match host.parse::<Ipv6Addr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("'{host}' is not an IPv6 address")),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the host is empty".to_owned());
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(format!("a host of {} bytes is longer than {HOST_BYTES_MAX}", host.len()));
    }
    match host.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))) {
        Some(wrong) => Err(format!("'{wrong}' in host '{host}' is not allowed")),
        None => Ok(()),
    }
}

fn parse_port(digits: &str) -> Result<u16, String> {
    let wrong = || format!("'{digits}' is not a port from 1 to 65535");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_read() {
        for (text, shown) in [
            ("localhost", "localhost:9090"),
            ("localhost:7000", "localhost:7000"),
            ("127.0.0.1", "127.0.0.1:9090"),
            ("[::1]", "[::1]:9090"),
            ("[::1]:7000", "[::1]:7000"),
            ("::1", "[::1]:9090"),
            ("http://db_1.example", "db_1.example:9090"),
            ("HTTP://db1:1/", "db1:1"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn the_wrong_part_is_quoted() {
        for (text, part) in [
            ("", "the host is empty"),
            (":9090", "the host is empty"),
            ("db1:", "'' is not a port"),
            ("db1:0", "'0' is not a port"),
            ("db1:65536", "'65536' is not a port"),
            ("db1:+80", "'+80' is not a port"),
            ("db 1", "' ' in host 'db 1'"),
            ("http://db1/path", "'/' in host 'db1/path'"),
            ("[::1", "no closing ']'"),
            ("[db1]:1", "'db1' is not an IPv6 address"),
            ("[::1]9090", "'9090' after ']'"),
            ("a:b:c", "'a:b:c' is not an IPv6 address"),
            ("ftp://db1", "scheme 'ftp'"),
            ("https://db1", "no TLS"),
        ] {
            let message = Endpoint::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(message.contains(&format!("'{text}'")), "{text}: {message}");
        }
    }
}
