#![no_main]
prkdb_fuzz::target!("log_operations");
