#![no_main]
prkdb_fuzz::target!("shard_operations");
