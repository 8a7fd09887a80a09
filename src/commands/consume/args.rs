//! The flags of `consume`.

use super::{place::At, template::Template};
use crate::commands::{complete, values};

const EXAMPLES: &str = "\
Examples:
  prkdb consume events
  prkdb consume events --from @2013-06-01T00:00:00Z --exit-at-end
  prkdb consume events -n 10 -f '%p/%o %k\\t%v\\n'
  prkdb consume events --partition 0,2 --from latest -o ndjson
  prkdb consume flights --exit-at-end -o ndjson | prkdb produce copy --format jsonl --allow-empty

A format has C escapes and these codes: %c collection, %p partition, %o offset, %T timestamp in
milliseconds since 1970, %k key, %v value, %h headers as name=value with commas between, %% a percent sign.
Keys and values are written as they are, but escaped on a terminal.

--from @TIME begins at the first record of each partition with that time or a later one, and then prints
all. --until @TIME ends before that record, or where a partition ends now if there is none yet. A TIME is
RFC 3339, in UTC where it has no zone, a date, or 10 (seconds) or 13 (milliseconds) digits.";

/// Arguments of `consume`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Collection to read
    #[arg(add = complete::collections())]
    pub(super) collection: String,
    /// Partitions to read [default: all]
    #[arg(long = "partition", value_name = "P[,P...]", value_delimiter = ',')]
    pub(super) partitions: Vec<u32>,
    /// Where to begin in each partition
    #[arg(long, value_name = "earliest|latest|OFFSET|@TIME", default_value = "earliest")]
    pub(super) from: At,
    /// Before what to end in each partition [default: follow what is appended]
    #[arg(long, value_name = "latest|OFFSET|@TIME", value_parser = At::end)]
    pub(super) until: Option<At>,
    /// End where each partition ends now
    #[arg(long)]
    pub(super) exit_at_end: bool,
    /// End after N records
    #[arg(short = 'n', long, value_name = "N", value_parser = values::limit)]
    pub(super) count: Option<u64>,
    /// Print each record in a form of your own
    #[arg(short, long, value_name = "FORMAT", value_parser = Template::parse)]
    pub(super) format: Option<Template>,
}
