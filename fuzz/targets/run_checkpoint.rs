#![no_main]
prkdb_fuzz::target!("run_checkpoint");
