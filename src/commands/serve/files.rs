//! The files that say that a node is ready: written whole or not at all, removed at the end.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Files of a running node; dropping it removes them.
#[derive(Debug, Default)]
pub(crate) struct Announced(Vec<PathBuf>);

impl Announced {
    /// Writes a file: a reader sees all of it or none.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".prkdb-").tempfile_in(dir)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        self.0.push(path.to_path_buf());
        Ok(())
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        for path in &self.0 {
            // Nobody is left to be told; the next start writes it again.
            let _removed = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_there_while_the_node_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        let mut announced = Announced::default();
        announced.write(&path, b"{}").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"{}");
        drop(announced);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
