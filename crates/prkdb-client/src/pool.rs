//! The connections of a client: at most a few per server, made when needed, made again after a break.
//!
//! Knows the servers it was given and those that other servers named. Everyone who needs the same new
//! connection waits for one attempt and shares its result. A stream that its reader may let wait has a
//! connection of its own; a few of those are kept for the next one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    address::Endpoint,
    attempts::Fault,
    error::{Attempt, ClientError},
    link::Link,
    options::ClientOptions,
};

/// How many servers are remembered; more than a cluster has, so only answers gone wrong reach it.
const SERVERS_MAX: usize = 256;
/// How many connections are kept for the next stream that wants one of its own: each costs both sides a
/// socket and a ping now and then.
const IDLE_MAX: usize = 4;

/// The connections of a client.
#[derive(Debug)]
pub(crate) struct Pool {
    options: Arc<ClientOptions>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The server that operations go to unless they belong elsewhere.
    home: Option<Arc<Server>>,
    servers: HashMap<Endpoint, Arc<Server>>,
    /// What a server calls itself, where it was reached under another address.
    own_names: HashMap<String, Endpoint>,
    /// Connections of streams that were read to their end, in the order they came back.
    idle: VecDeque<Arc<Link>>,
}

/// A connection of the borrower's own.
#[derive(Debug)]
pub(crate) struct Borrowed {
    pub(crate) link: Arc<Link>,
    /// Whether another stream had it before: the server may have closed it since.
    pub(crate) was_idle: bool,
}

impl Pool {
    pub(crate) fn new(options: Arc<ClientOptions>) -> Self {
        Self { options, state: Mutex::default() }
    }

    /// Returns a connection to the home server; where it is gone, to the first server that answers.
    pub(crate) async fn home(&self) -> Result<Arc<Link>, Fault> {
        let mut attempts: Vec<Attempt> = Vec::new();
        if let Some(home) = self.with(|state| state.home.clone()) {
            match home.link(&self.options).await {
                Ok(link) => return Ok(link),
                Err(attempt) => attempts.push(attempt),
            }
        }
        for endpoint in &self.options.servers {
            if attempts.iter().any(|attempt| attempt.address == endpoint.to_string()) {
                continue;
            }
            match self.reach(endpoint).await {
                Ok((server, link)) => {
                    self.with(|state| state.home = Some(server));
                    return Ok(link);
                }
                Err(attempt) => attempts.push(attempt),
            }
        }
        Err(Fault::Unreachable(attempts))
    }

    /// Returns the address of the home server; before the first connection, of the first one given.
    pub(crate) fn home_address(&self) -> String {
        let home = self.with(|state| state.home.as_ref().map(|server| server.endpoint.to_string()));
        home.or_else(|| self.options.servers.first().map(Endpoint::to_string)).unwrap_or_default()
    }

    /// Returns a connection to the server of this address; of none, to the home server.
    pub(crate) async fn at(&self, address: &str) -> Result<Arc<Link>, Fault> {
        if address.is_empty() {
            return self.home().await;
        }
        let known = self.with(|state| state.own_names.get(address).cloned());
        let endpoint = match known {
            Some(endpoint) => endpoint,
            None => Endpoint::parse(address).map_err(|error| {
                Fault::Final(ClientError::Protocol {
                    address: address.to_owned(),
                    reason: format!("a leader's address cannot be read: {error}"),
                })
            })?,
        };
        match self.reach(&endpoint).await {
            Ok((_, link)) => Ok(link),
            Err(attempt) => Err(Fault::Unreachable(vec![attempt])),
        }
    }

    /// Returns a connection of the caller's own to the server of this address; of none, to the home server.
    ///
    /// A stream that its reader lets wait fills the window of its connection, and then nothing else comes
    /// through: not even the answer to a write that the reader waits for.
    pub(crate) async fn apart(&self, address: &str) -> Result<Arc<Link>, Fault> {
        let shared = self.at(address).await?;
        self.beside(&shared).await
    }

    /// Returns a connection as [`Self::apart`] does, one that is idle where there is one. Whoever has read a
    /// stream to its end gives it back.
    pub(crate) async fn borrow(&self, address: &str) -> Result<Borrowed, Fault> {
        let shared = self.at(address).await?;
        match self.with(|state| state.take_idle(shared.address())) {
            Some(link) => Ok(Borrowed { link, was_idle: true }),
            None => Ok(Borrowed { link: self.beside(&shared).await?, was_idle: false }),
        }
    }

    /// Keeps a connection for the next stream.
    pub(crate) fn give_back(&self, link: Arc<Link>) {
        self.with(|state| {
            if state.idle.len() >= IDLE_MAX {
                state.idle.pop_front();
            }
            state.idle.push_back(link);
        });
    }

    /// Lets go of the idle connections of a server: one of them was found broken.
    pub(crate) fn forget_idle(&self, address: &str) {
        self.with(|state| state.idle.retain(|link| link.address() != address));
    }

    /// Opens another connection to the server of one.
    async fn beside(&self, shared: &Link) -> Result<Arc<Link>, Fault> {
        let endpoint = Endpoint::parse(shared.address()).map_err(Fault::Final)?;
        Link::open(&endpoint, self.options.connect_timeout).await.map_err(|attempt| {
            // What the pool has is no better: the next attempt looks again.
            shared.set_broken();
            Fault::Unreachable(vec![attempt])
        })
    }

    async fn reach(&self, endpoint: &Endpoint) -> Result<(Arc<Server>, Arc<Link>), Attempt> {
        let server = self.server(endpoint);
        let link = server.link(&self.options).await?;
        if let Some(name) = own_name(&link) {
            self.with(|state| {
                if state.own_names.len() < SERVERS_MAX && !state.own_names.contains_key(name) {
                    state.own_names.insert(name.to_owned(), endpoint.clone());
                }
            });
        }
        Ok((server, link))
    }

    fn server(&self, endpoint: &Endpoint) -> Arc<Server> {
        self.with(|state| {
            if let Some(server) = state.servers.get(endpoint) {
                return Arc::clone(server);
            }
            if state.servers.len() >= SERVERS_MAX {
                state.servers.clear();
            }
            let server = Arc::new(Server::new(endpoint.clone(), self.options.connections));
            state.servers.insert(endpoint.clone(), Arc::clone(&server));
            server
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Takes the connection that came back last; those that broke since are let go.
    fn take_idle(&mut self, address: &str) -> Option<Arc<Link>> {
        self.idle.retain(|link| link.is_usable());
        let place = self.idle.iter().rposition(|link| link.address() == address)?;
        self.idle.remove(place)
    }
}

/// Returns the address under which the server knows itself.
fn own_name(link: &Link) -> Option<&str> {
    let greeting = link.greeting()?;
    let node = greeting.nodes.iter().find(|node| node.id == greeting.node_id)?;
    Some(node.address.as_str()).filter(|address| !address.is_empty())
}

/// One server and its connections.
#[derive(Debug)]
struct Server {
    endpoint: Endpoint,
    places: Vec<Place>,
    turn: AtomicUsize,
}

/// Where one connection is kept.
#[derive(Debug, Default)]
struct Place {
    state: Mutex<PlaceState>,
    /// Held while connecting, so that one does it for all.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct PlaceState {
    link: Option<Arc<Link>>,
    /// Counts attempts to connect: who waited for one takes its result.
    attempts: u64,
    failure: Option<Attempt>,
}

impl Server {
    fn new(endpoint: Endpoint, connections: usize) -> Self {
        let places = (0..connections.max(1)).map(|_| Place::default()).collect();
        Self { endpoint, places, turn: AtomicUsize::new(0) }
    }

    fn place(&self) -> Option<&Place> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.places.get(turn % self.places.len())
    }

    /// Returns the next connection in turn, and opens it where it is not.
    async fn link(&self, options: &ClientOptions) -> Result<Arc<Link>, Attempt> {
        let gone = || Attempt {
            address: self.endpoint.to_string(),
            reason: "connecting was given up".to_owned(),
        };
        let place = self.place().ok_or_else(gone)?;
        if let Some(link) = place.usable() {
            return Ok(link);
        }
        let seen = place.with(|state| state.attempts);
        let _connecting = place.connecting.lock().await;
        if let Some(link) = place.usable() {
            return Ok(link);
        }
        if place.with(|state| state.attempts) != seen {
            return Err(place.with(|state| state.failure.clone()).unwrap_or_else(gone));
        }
        let opened = Link::open(&self.endpoint, options.connect_timeout).await;
        place.with(|state| {
            state.attempts += 1;
            state.link = opened.as_ref().ok().cloned();
            state.failure = opened.as_ref().err().cloned();
        });
        opened
    }
}

impl Place {
    fn usable(&self) -> Option<Arc<Link>> {
        self.with(|state| state.link.clone()).filter(|link| link.is_usable())
    }

    fn with<T>(&self, work: impl FnOnce(&mut PlaceState) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
