//! Telling that a node is ready: one line on stdout, and the files that flags ask for.

use std::{io, io::Write as _, net::SocketAddr};

use super::{args::Args, files::Announced};
use crate::commands::{output::Object, version};

/// What a ready node has to tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Its id.
    pub(super) node_id: u64,
    /// Where gRPC is answered.
    pub(super) grpc: SocketAddr,
    /// Where HTTP is answered, if anywhere.
    pub(super) http: Option<SocketAddr>,
}

impl Facts {
    /// The line on stdout.
    fn line(&self) -> String {
        let http = self.http.map_or("none".to_owned(), |address| address.to_string());
        format!("prkdb ready node={} grpc={} http={http}\n", self.node_id, self.grpc)
    }

    /// The content of the ready file.
    fn document(&self) -> Object {
        let mut document = Object::default();
        document
            .add("pid", std::process::id())
            .add("node_id", self.node_id)
            .add("grpc", self.grpc.to_string())
            .add("http", self.http.map(|address| address.to_string()))
            .add("version", version::PACKAGE);
        document
    }
}

/// Writes the files and then the line: who reads the line finds the files.
///
/// # Errors
/// Those of a file. A closed stdout is none: the node serves without a reader.
pub(super) fn announce(facts: &Facts, args: &Args, announced: &mut Announced) -> io::Result<()> {
    if let Some(path) = &args.pid_file {
        announced.write(path, format!("{}\n", std::process::id()).as_bytes())?;
    }
    if let Some(path) = &args.ready_file {
        let mut bytes = serde_json::to_vec(&facts.document())?;
        bytes.push(b'\n');
        announced.write(path, &bytes)?;
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(facts.line().as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_and_document_say_the_same() {
        let facts =
            Facts { node_id: 1, grpc: SocketAddr::from(([127, 0, 0, 1], 43121)), http: None };
        assert_eq!(facts.line(), "prkdb ready node=1 grpc=127.0.0.1:43121 http=none\n");
        let document = serde_json::to_string(&facts.document()).unwrap();
        assert!(document.contains("\"node_id\":1,\"grpc\":\"127.0.0.1:43121\",\"http\":null,"));
    }
}
