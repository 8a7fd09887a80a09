//! prkdb-client
