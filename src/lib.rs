//! PrkDB.
