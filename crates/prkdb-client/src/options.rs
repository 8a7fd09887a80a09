//! What a client is told when it is made.

use std::{sync::Arc, time::Duration};

use crate::{
    address::Endpoint,
    clock::{Clock, SystemClock},
};

/// How single operations travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over one multiplexed stream per connection, answered in any order.
    #[default]
    Stream,
    /// As one call each, as clients of other languages send them.
    Unary,
}

/// Settings of a [`crate::Client`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Servers to begin with, tried in order. Default: `127.0.0.1:9090`.
    pub servers: Vec<Endpoint>,
    /// How long one operation may take, with its retries; `None` = no limit. Default 10 s.
    pub timeout: Option<Duration>,
    /// How long one address may take to be reached. Default 2 s.
    pub connect_timeout: Duration,
    /// How often an operation is repeated after its first attempt. Default 3.
    pub retries: u32,
    /// Connections to each server, used in turn. Default 1, at least 1.
    pub connections: usize,
    /// How single operations travel. Default: over a stream.
    pub transport: Transport,
    /// Stamps records whose caller gives no time. Default: the machine's clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            servers: vec![Endpoint::default()],
            timeout: Some(Duration::from_secs(10)),
            connect_timeout: Duration::from_secs(2),
            retries: 3,
            connections: 1,
            transport: Transport::Stream,
            clock: Arc::new(SystemClock),
        }
    }
}
