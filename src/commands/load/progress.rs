//! Progress on a terminal: a bar for a file, a spinner where the end is not known.

use indicatif::{ProgressBar, ProgressStyle};

/// What is drawn; nothing where progress is off.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Begins to draw.
    pub(crate) fn new(is_on: bool, size: Option<u64>) -> Self {
        if !is_on {
            return Self(ProgressBar::hidden());
        }
        let (bar, template) = match size {
            Some(size) => (ProgressBar::new(size), "{bar:30} {bytes}/{total_bytes} {eta} {msg}"),
            None => (ProgressBar::no_length(), "{spinner} {elapsed} {msg}"),
        };
        match ProgressStyle::with_template(template) {
            Ok(style) => Self(bar.with_style(style)),
            Err(_) => Self(bar),
        }
    }

    /// Shows how far it is.
    pub(crate) fn set(&self, bytes: u64, records: u64) {
        if !self.0.is_hidden() {
            self.0.set_position(bytes);
            self.0.set_message(format!("{records} records"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
