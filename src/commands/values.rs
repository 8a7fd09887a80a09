//! Values of flags as people write them: durations, sizes, limits, rates.
//!
//! A duration needs its unit (`250ms`, `10s`, `1h 30m`), only 0 stands alone. A size is bytes or has
//! a unit (`64MiB`, `1GB`).

use std::{num::NonZeroU64, str::FromStr as _, time::Duration};

/// Parses a duration; `0` is one.
///
/// # Errors
/// A message that says what is missing.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("add a unit, such as {text}s or {text}ms"));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Parses a number of bytes.
///
/// # Errors
/// A message that says what is wrong.
pub fn size(text: &str) -> Result<u64, String> {
    if text.trim_start().starts_with(['-', '+']) {
        return Err("a size has no sign".to_owned());
    }
    bytesize::ByteSize::from_str(text).map(|size| size.as_u64()).map_err(|_| {
        "not a size; write bytes, or a number with KiB, MiB, GiB, KB, MB or GB".to_owned()
    })
}

/// Parses the number of rows to print; more than can be counted means all.
///
/// # Errors
/// A message that says what is wrong.
pub fn limit(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a number of rows".to_owned());
    }
    match text.parse::<u64>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(limit) => Ok(limit),
        Err(_) => Ok(u64::MAX),
    }
}

/// Parses a rate, `1000` or `1000/s`.
///
/// # Errors
/// A message that says what is wrong.
pub fn rate(text: &str) -> Result<NonZeroU64, String> {
    let digits = text.strip_suffix("/s").unwrap_or(text);
    digits.parse().map_err(|_| "not a rate; write a number of records, such as 5000/s".to_owned())
}

/// Parses a port-bearing address or `none`, as `--http` takes it.
///
/// # Errors
/// A message that says what is wrong.
pub fn listen_address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("'{text}' has no port"))?;
    if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
        return Err(format!("'{host}' is not a host; write HOST:PORT or [ADDRESS]:PORT"));
    }
    port.parse::<u16>().map_err(|_| format!("'{port}' is not a port from 0 to 65535"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_but_for_zero() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h 30m"), duration("1h30m"));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("5").unwrap_err().contains("add a unit"));
        for wrong in ["", "-1s", "99999999999999999999h", "s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1GB"), Ok(1_000_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "-1", "1XB", "MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_start_at_one_and_have_no_end() {
        assert_eq!(limit("7"), Ok(7));
        assert_eq!(limit("99999999999999999999999"), Ok(u64::MAX));
        for wrong in ["0", "-1", "", "x"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_may_say_per_second() {
        assert_eq!(rate("5000/s"), rate("5000"));
        assert!(rate("0").is_err());
    }

    #[test]
    fn addresses_need_a_port() {
        assert!(listen_address("127.0.0.1:0").is_ok());
        assert!(listen_address("[::1]:9090").is_ok());
        for wrong in ["127.0.0.1", ":9090", "::1:9090", "h:70000", "h:"] {
            assert!(listen_address(wrong).is_err(), "{wrong}");
        }
    }
}
