//! A record on its way into a batch.

/// A record to send. It borrows its bytes: they are encoded straight into a batch.
///
/// ```
/// use prkdb_client::Record;
///
/// let event = Record::new(b"clicked").headers(&[("source", b"web")]);
/// let keyed = Record::new(b"Ada").key(b"user:1").timestamp_ms(1_385_251_200_000);
/// assert_eq!((event.key, keyed.key), (None, Some(&b"user:1"[..])));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Its key; `None` for a pure event.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order: name and value.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The time it is stamped with, in milliseconds since 1970; `None` = the client's clock.
    pub timestamp_ms: Option<i64>,
    /// The number of the partition it goes to; `None` = the key's, or for a record without a key the one
    /// whose batch is being filled.
    pub partition: Option<u32>,
}

impl<'a> Record<'a> {
    /// A pure event: a value without a key.
    pub fn new(value: &'a [u8]) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// A tombstone: a key without a value.
    pub fn tombstone(key: &'a [u8]) -> Self {
        Self { key: Some(key), ..Self::default() }
    }

    /// Gives it a key.
    #[must_use]
    pub fn key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }

    /// Gives it headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a [(&'a str, &'a [u8])]) -> Self {
        self.headers = headers;
        self
    }

    /// Stamps it with this time instead of the client's clock, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Sends it to this partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Returns how many bytes it adds to a batch at most.
    pub(super) fn bytes_max(&self) -> usize {
        /// Length, attributes, two deltas, two lengths and a count, each as long as it gets.
        const FIELDS: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        /// The lengths of a header's name and value.
        const HEADER: usize = 5 + 5;
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + HEADER);
        FIELDS + len(self.key) + len(self.value) + headers.sum::<usize>()
    }
}
