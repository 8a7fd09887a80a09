//! The configuration files of the client: defaults and connection profiles in TOML.
//!
//! Three layers, highest first: the selected profile, `[defaults]` of the person's file, `[defaults]`
//! of the system's file. Flags and the environment stand above them, built-in values below. A key
//! that is not known is refused with its place and the nearest name: a typing error must not pass as
//! a setting.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use etcetera::{BaseStrategy as _, base_strategy::Xdg};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::commands::{
    failure::{Failure, Result},
    values,
};

/// The file for everybody on the machine.
const SYSTEM_FILE: &str = "/etc/prkdb/config.toml";

/// The most a configuration file may hold.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// When reversible commands ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfirmPolicy {
    /// Never.
    Never,
    /// On a terminal.
    #[default]
    Tty,
    /// Always, and without a terminal they refuse.
    Always,
}

/// Settings of one layer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Servers to begin with.
    #[serde(default)]
    pub servers: Option<Vec<String>>,
    /// The output format.
    #[serde(default)]
    pub output: Option<String>,
    /// The deadline of a command; 0 = none.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// The limit for reaching one address.
    #[serde(default, deserialize_with = "duration")]
    pub connect_timeout: Option<Duration>,
    /// How often an operation is repeated.
    #[serde(default)]
    pub retries: Option<u32>,
    /// The collection of the data commands.
    #[serde(default)]
    pub collection: Option<String>,
    /// When reversible commands ask.
    #[serde(default)]
    pub confirm: Option<ConfirmPolicy>,
    /// Always ask, with the profile's name in the prompt.
    #[serde(default)]
    pub protected: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    current: Option<String>,
    #[serde(default)]
    defaults: Layer,
    #[serde(default)]
    profiles: BTreeMap<String, Layer>,
}

/// What the files say, highest layer first.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The name of the selected profile.
    pub profile: Option<String>,
    layers: Vec<Layer>,
}

impl Config {
    /// Reads the files: the one named, or the person's and the system's. `none` names no file.
    ///
    /// # Errors
    /// A file that cannot be read is exit 13 where it was named; one that is wrong is exit 2.
    pub fn load(named: Option<&Path>, profile: Option<&str>) -> Result<Self> {
        let files = match named {
            Some(path) if path == Path::new("none") => Vec::new(),
            Some(path) => vec![read(path)?],
            None => {
                let mut files = Vec::new();
                for path in user_file().into_iter().chain([PathBuf::from(SYSTEM_FILE)]) {
                    // An optional file that is not there, or may not be looked for, is no layer.
                    if fs::metadata(&path).is_ok() {
                        files.push(read(&path)?);
                    }
                }
                files
            }
        };
        Self::of(files, profile)
    }

    /// Reads the text of one file.
    ///
    /// # Errors
    /// Exit 2.
    pub(super) fn parse(text: &str, shown: &str) -> Result<Self> {
        Self::of(vec![parse_toml(text, shown)?], None)
    }

    fn of(files: Vec<File>, profile: Option<&str>) -> Result<Self> {
        let current = files.iter().find_map(|file| file.current.clone());
        let selected = profile.map(str::to_owned).or(current);
        let mut layers = Vec::new();
        if let Some(name) = &selected {
            let found = files.iter().find_map(|file| file.profiles.get(name));
            layers.push(found.cloned().ok_or_else(|| unknown_profile(name, &files))?);
        }
        layers.extend(files.into_iter().map(|file| file.defaults));
        Ok(Self { profile: selected, layers })
    }

    /// Returns the value of the highest layer that has one.
    pub fn get<T>(&self, field: impl Fn(&Layer) -> Option<T>) -> Option<T> {
        self.layers.iter().find_map(field)
    }

    /// Returns when reversible commands ask; a protected profile always does.
    pub fn confirm_policy(&self) -> ConfirmPolicy {
        if self.is_protected() {
            return ConfirmPolicy::Always;
        }
        self.get(|layer| layer.confirm).unwrap_or_default()
    }

    /// Returns whether the selected profile is protected.
    pub fn is_protected(&self) -> bool {
        self.get(|layer| layer.protected).unwrap_or(false)
    }
}

fn unknown_profile(name: &str, files: &[File]) -> Failure {
    let known: Vec<_> = files.iter().flat_map(|file| file.profiles.keys().cloned()).collect();
    let failure = Failure::usage(format!("unknown profile '{name}'"));
    if known.is_empty() {
        failure.hint("no configuration file has a profile")
    } else {
        failure.hint(format!("one of: {}", known.join(", ")))
    }
}

fn user_file() -> Option<PathBuf> {
    Xdg::new().ok().map(|xdg| xdg.config_dir().join("prkdb/config.toml"))
}

fn read(path: &Path) -> Result<File> {
    Ok(parse_toml(&read_text(path)?, path.display())?)
}

/// Reads the text of a configuration file, without its byte order mark.
///
/// # Errors
/// 13 where it cannot be read; 2 where it is too large or not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let shown = path.display();
    let failed = |error: &io::Error| Failure::io(format_args!("read {shown}"), error);
    let metadata = fs::metadata(path).map_err(|error| failed(&error))?;
    if metadata.len() > FILE_BYTES_MAX {
        let message = format!("{shown}: {} bytes, limit {FILE_BYTES_MAX}", metadata.len());
        return Err(Failure::usage(message).into());
    }
    let bytes = fs::read(path).map_err(|error| failed(&error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        Failure::usage(format!("{shown}: not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

/// Parses TOML into a type that refuses unknown fields.
///
/// # Errors
/// Exit 2, with line, column and, for a name that is not known, the nearest one.
pub fn parse_toml<T: for<'de> Deserialize<'de>>(
    text: &str,
    file: impl Display,
) -> std::result::Result<T, Failure> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        let message = error.message().lines().next().unwrap_or_default();
        let failure = Failure::usage(format!("{file}:{line}:{column}: {message}"));
        match suggestion(error.message()) {
            Some(name) => failure.hint(format!("did you mean '{name}'?")),
            None => failure,
        }
    })
}

/// Returns line and column, from 1, of a position.
fn place(text: &str, position: usize) -> (usize, usize) {
    let before = text.get(..position).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Returns the known name nearest to the unknown one; serde's message lists both in backticks.
fn suggestion(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().filter(|_| message.starts_with("unknown field"))?;
    nearest(unknown, names)
}

/// Returns the name that differs least, if it differs little.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let nearest = names.map(|name| (distance(wrong, name), name)).min()?;
    (nearest.0 <= 1 + wrong.chars().count() / 3).then(|| nearest.1.to_owned())
}

/// Counts the letters to change, add or leave out (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let changed = at(&row, j) + usize::from(from != *to);
            next.push(changed.min(at(&row, j + 1) + 1).min(at(&next, j) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    values::duration(&text).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure::Stop;

    fn file(text: &str) -> File {
        parse_toml(text, "config.toml").unwrap()
    }

    fn refused(text: &str) -> (String, Option<String>) {
        let failure = parse_toml::<File>(text, "config.toml").unwrap_err();
        assert_eq!(failure.exit(), 2);
        (failure.message(), failure.hint_text())
    }

    #[test]
    fn profile_wins_over_user_and_user_over_system() {
        let user = file(
            "current = \"prod\"\n[defaults]\ntimeout = \"3s\"\nretries = 1\n\
             [profiles.prod]\ntimeout = \"1s\"\nprotected = true\n",
        );
        let system = file("[defaults]\nretries = 9\noutput = \"csv\"\n");
        let config = Config::of(vec![user, system], None).unwrap();
        assert_eq!(config.get(|layer| layer.timeout), Some(Duration::from_secs(1)));
        assert_eq!(config.get(|layer| layer.retries), Some(1));
        assert_eq!(config.get(|layer| layer.output.clone()).as_deref(), Some("csv"));
        assert_eq!(config.confirm_policy(), ConfirmPolicy::Always);
        assert_eq!(config.profile.as_deref(), Some("prod"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_name() {
        let (message, hint) = refused("[defaults]\n  timout = \"3s\"\n");
        assert!(message.starts_with("config.toml:2:3: unknown field `timout`"), "{message}");
        assert_eq!(hint.as_deref(), Some("did you mean 'timeout'?"));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let (message, _) = refused("[defaults]\ntimeout = \"5\"\n");
        assert!(
            message.starts_with("config.toml:2:11:") && message.contains("add a unit"),
            "{message}"
        );
        let (message, _) = refused("[defaults]\nretries = -1\n");
        assert!(message.starts_with("config.toml:2:11:"), "{message}");
    }

    #[test]
    fn an_unknown_profile_names_the_known_ones() {
        let Err(Stop::Failed(failure)) =
            Config::of(vec![file("[profiles.a]\n[profiles.b]\n")], Some("c"))
        else {
            panic!("accepted")
        };
        assert_eq!(failure.hint_text().as_deref(), Some("one of: a, b"));
    }

    #[test]
    fn distances_count_letters() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("timout", "timeout", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
