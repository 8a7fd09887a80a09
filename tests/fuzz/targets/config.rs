//! The configuration files: of a client, and of a server.

use prkdb::commands::fuzz::{client_config, serve_config};

use super::source::text;

/// Whose file, and its text.
pub fn run(data: &[u8]) {
    let Some((whose, rest)) = data.split_first() else { return };
    if whose & 1 == 0 {
        if let Some(config) = client_config(text(rest)) {
            let _policy = config.confirm_policy();
            let _servers = config.get(|layer| layer.servers.clone());
        }
    } else {
        let _args = serve_config(text(rest));
    }
}

/// One of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let client = "current = \"prod\"\n[defaults]\nservers = [\"db1:9090\"]\noutput = \"json\"\ntimeout = \"5s\"\nconfirm = \"always\"\n[profiles.prod]\nretries = 3\nprotected = true\nconnect_timeout = \"2s\"\ncollection = \"c\"\n";
    let server = "node_id = 7\nlisten = \"127.0.0.1:1\"\nmax_value = \"2MiB\"\nallow_insecure = true\nheartbeat = \"100ms\"\nelection_timeout = \"500ms..800ms\"\npartitioner = \"kafka\"\n";
    vec![
        [b"0", client.as_bytes()].concat(),
        [b"1", server.as_bytes()].concat(),
        b"0[profiles]\nx = {timeuot = 1}\n".to_vec(),
        b"1node_ide = 7\n".to_vec(),
    ]
}
