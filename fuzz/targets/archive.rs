#![no_main]
prkdb_fuzz::target!("archive");
