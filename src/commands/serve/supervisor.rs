//! What systemd is told (`sd_notify(3)`). Without `NOTIFY_SOCKET` nobody is told.

use sd_notify::{NotifyState, notify};

/// The node serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The node drains and ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The configuration is read again; [`ready`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "the supervisor cannot be told");
    }
}
