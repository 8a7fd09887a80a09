//! Transactions for programs without an async runtime.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use prkdb_types::{Isolation, transaction::Order};

use super::{Client, Thread};
use crate::{
    error::ClientError,
    transaction::{self, Committed, TransactionOptions},
};

/// A transaction, as [`crate::Transaction`].
#[derive(Debug)]
pub struct Transaction {
    tx: transaction::Transaction,
    thread: Arc<Thread>,
}

impl Client {
    /// Begins a transaction.
    pub fn begin_with(&self, options: TransactionOptions) -> Transaction {
        Transaction { tx: self.client.begin_with(options), thread: Arc::clone(&self.thread) }
    }

    /// Runs a transaction and commits it; runs it again where it conflicts.
    ///
    /// # Errors
    /// As [`crate::Client::transact`].
    pub fn transact<T>(
        &self,
        isolation: Isolation,
        mut run: impl FnMut(&mut Transaction) -> Result<T, ClientError>,
    ) -> Result<(T, Committed), ClientError> {
        let mut pauses = crate::attempts::Pauses::default();
        loop {
            let options = TransactionOptions { isolation, ..TransactionOptions::default() };
            let mut tx = self.begin_with(options);
            let outcome =
                run(&mut tx).and_then(|value| tx.commit().map(|committed| (value, committed)));
            match outcome {
                Err(error) if error.is_conflict() => self.thread.wait(pauses.rest(error))?,
                outcome => return outcome,
            }
        }
    }
}

impl Transaction {
    /// Reads a key.
    ///
    /// # Errors
    /// As [`crate::Transaction::get`].
    pub fn get(
        &mut self,
        collection: &str,
        key: impl Into<Bytes>,
    ) -> Result<Option<Bytes>, ClientError> {
        self.thread.wait(self.tx.get(collection, key))
    }

    /// Reads keys of a collection between two bounds, in order, at most `limit` of them.
    ///
    /// # Errors
    /// As [`crate::Transaction::scan`].
    pub fn scan(
        &mut self,
        collection: &str,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ClientError> {
        self.thread.wait(self.tx.scan(collection, range, order, limit))
    }

    /// Writes a value. It is kept here until the commit.
    ///
    /// # Errors
    /// As [`crate::Transaction::put`].
    pub fn put(
        &mut self,
        collection: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        self.tx.put(collection, key, value)
    }

    /// Takes a key's value away. It is kept here until the commit.
    ///
    /// # Errors
    /// As [`crate::Transaction::delete`].
    pub fn delete(&mut self, collection: &str, key: impl Into<Bytes>) -> Result<(), ClientError> {
        self.tx.delete(collection, key)
    }

    /// Sets a mark that the transaction can go back to.
    ///
    /// # Errors
    /// As [`crate::Transaction::savepoint`].
    pub fn savepoint(&mut self, name: &str) -> Result<(), ClientError> {
        self.tx.savepoint(name)
    }

    /// Undoes what was written since a mark.
    ///
    /// # Errors
    /// As [`crate::Transaction::rollback_to_savepoint`].
    pub fn rollback_to_savepoint(&mut self, name: &str) -> Result<(), ClientError> {
        self.tx.rollback_to_savepoint(name)
    }

    /// Forgets a mark and those set after it; what was written stays.
    ///
    /// # Errors
    /// As [`crate::Transaction::release_savepoint`].
    pub fn release_savepoint(&mut self, name: &str) -> Result<(), ClientError> {
        self.tx.release_savepoint(name)
    }

    /// Ends it: nothing of it is applied.
    ///
    /// # Errors
    /// As [`crate::Transaction::rollback`].
    pub fn rollback(self) -> Result<(), ClientError> {
        self.thread.wait(self.tx.rollback())
    }

    /// Commits it.
    ///
    /// # Errors
    /// As [`crate::Transaction::commit`].
    pub fn commit(self) -> Result<Committed, ClientError> {
        self.thread.wait(self.tx.commit())
    }
}
