#![no_main]
prkdb_fuzz::target!("service_stream");
