//! Showing the same again and again.

use std::time::Duration;

use super::{
    exit,
    failure::{Result, Stop},
    output::Format,
    session::Session,
    values,
};

/// From the first cell of a terminal on, with nothing on it.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// How often to show something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// Show it every so often until interrupted: a table drawn anew on a terminal, NDJSON elsewhere
    #[arg(
        long,
        short = 'w',
        value_name = "DUR",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = values::duration
    )]
    watch: Option<Duration>,
}

/// Shows something once, or as often as asked for. While it is shown again, a server that does not
/// answer is told and asked again.
///
/// # Errors
/// Those of `show`; while it is shown again only those that another try cannot mend.
pub(super) async fn repeat(
    session: &mut Session,
    args: WatchArgs,
    mut show: impl AsyncFnMut(&mut Session) -> Result,
) -> Result {
    let Some(every) = args.watch else { return show(session).await };
    let is_screen = session.output.is_terminal && session.output.options.format == Format::Table;
    if !is_screen {
        session.output.options.format = Format::Ndjson;
    }
    loop {
        if is_screen {
            session.output.bytes(CLEAR)?;
        }
        match show(session).await {
            Ok(()) | Err(Stop::Quiet(exit::UNHEALTHY | exit::DEGRADED)) => {}
            Err(Stop::Failed(failure)) if failure.is_transient() => {
                session.talk.warning(&failure.message());
            }
            Err(stop) => return Err(stop),
        }
        session.output.flush()?;
        tokio::time::sleep(every).await;
    }
}
