//! What happens when the program has a defect.
//!
//! A panic is told in one line and a hint instead of a trace; the process ends with 101. A server
//! ends as a whole: a node that lost one of its threads must not go on.

use std::{
    panic::{self, PanicHookInfo},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::commands::{exit, talk::Talk};

/// Whether a panic of any thread ends the process.
static ENDS_PROCESS: AtomicBool = AtomicBool::new(false);

/// Installs the hook.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let talk = Talk::plain();
        talk.item_failed(&format!("defect: {}", describe(info)));
        talk.hint("please report it, with the command line and this message");
        if ENDS_PROCESS.load(Ordering::SeqCst) {
            #[expect(clippy::exit, reason = "a node must not go on without one of its threads")]
            std::process::exit(i32::from(exit::BUG));
        }
    }));
}

/// From now on a panic of any thread ends the process.
pub fn end_process() {
    ENDS_PROCESS.store(true, Ordering::SeqCst);
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned());
    match info.location() {
        Some(place) => format!("{message} ({}:{})", place.file(), place.line()),
        None => message,
    }
}
