//! Puts and gets against a node, in a collection of their own.

use std::{rc::Rc, time::Duration};

use prkdb_client::{Client, ClientOptions, Get, Put, Transport, wire};

use super::{
    args::LoadArgs,
    load::{self, Plan, Seen},
    machine::random,
    made::Made,
};
use crate::commands::{
    failure::{Failure, Result},
    session::{self, Session},
};

/// Puts under way while keys are prepared.
const PREPARING_CLIENTS: u32 = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Single puts.
    Put,
    /// Single linearizable gets of existing keys.
    Get,
    /// So many gets of a hundred operations, the rest puts.
    Mixed(u8),
}

/// A node and a collection on it.
pub(super) struct Bench {
    client: Client,
    collection: String,
    keys: u64,
    key_size: usize,
    payload: Rc<[u8]>,
}

impl Bench {
    /// Connects and creates the collection.
    ///
    /// # Errors
    /// 4 where no node answers, 2 where the keyspace does not fit into the keys.
    pub(super) async fn new(session: &Session, args: &LoadArgs, made: &Made) -> Result<Self> {
        let key_size = usize::try_from(args.key_size).unwrap_or(usize::MAX);
        let value_size = usize::try_from(args.value_size).unwrap_or(usize::MAX);
        let digits = (args.keyspace.get() - 1).to_string().len();
        if !(digits..=65_536).contains(&key_size) {
            let message =
                format!("--key-size: {} keys need {digits} to 65536 bytes", args.keyspace);
            return Err(Failure::usage(message).into());
        }
        if value_size > 16 << 20 {
            return Err(Failure::usage("--value-size: at most 16MiB").into());
        }
        let transport = if args.unary { Transport::Unary } else { Transport::Stream };
        let options = ClientOptions { transport, ..session.options.clone() };
        let client = Client::connect(options).await.map_err(|error| session::failure(&error))?;
        let settings = wire::CollectionSettings { partitions: 3, ..Default::default() };
        let collection = made.create(&client, settings).await?;
        // Twice the value: each one is another window of it.
        let payload = Rc::from(random(value_size * 2 + 1)?);
        Ok(Self { client, collection, keys: args.keyspace.get(), key_size, payload })
    }

    /// Measures.
    ///
    /// # Errors
    /// Where nothing could be measured.
    pub(super) async fn measure(&self, operation: Operation, args: &LoadArgs) -> Result<Seen> {
        if operation != Operation::Put {
            self.prepare().await?;
        }
        let plan = Plan {
            clients: args.clients,
            warmup: args.warmup,
            duration: args.duration,
            count: args.count,
            rate: args.rate,
        };
        match operation {
            Operation::Put => load::run(plan, |number| self.put(number)).await,
            Operation::Get => load::run(plan, |number| self.get(number)).await,
            Operation::Mixed(reads) => {
                load::run(plan, async |number| {
                    if scattered(!number) % 100 < u64::from(reads) {
                        self.get(number).await
                    } else {
                        self.put(number).await
                    }
                })
                .await
            }
        }
    }

    async fn prepare(&self) -> Result {
        let plan = Plan {
            clients: PREPARING_CLIENTS,
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            count: std::num::NonZeroU64::new(self.keys),
            rate: None,
        };
        let keys = self.keys;
        let put = |number: u64| self.put_key(number.min(keys - 1), number);
        let seen = load::run(plan, put).await?;
        match seen.first_error {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    async fn put(&self, number: u64) -> std::result::Result<(), Failure> {
        self.put_key(scattered(number) % self.keys, number).await
    }

    async fn put_key(&self, key: u64, number: u64) -> std::result::Result<(), Failure> {
        let length = self.payload.len() / 2;
        let start = usize::try_from(scattered(number)).unwrap_or(0) % (length + 1);
        let value = self.payload.get(start..start + length).unwrap_or_default().to_vec();
        let put = Put::new(self.collection.clone(), self.key(key), value);
        self.client.put(put).await.map(|_| ()).map_err(|error| session::failure(&error))
    }

    async fn get(&self, number: u64) -> std::result::Result<(), Failure> {
        let get = Get::new(self.collection.clone(), self.key(scattered(number) % self.keys));
        let read = self.client.get(get).await.map_err(|error| session::failure(&error))?;
        match read.value {
            Some(_) => Ok(()),
            None => Err(Failure::measurement("a key that was put has no value")),
        }
    }

    fn key(&self, number: u64) -> Vec<u8> {
        format!("{number:0width$}", width = self.key_size).into_bytes()
    }
}

/// Spreads numbers over all 64 bits (the finalizer of `SplitMix64`, Steele 2014).
fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
