//! The command that goes on with a run, as a shell reads it.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
};

use super::job::Job;

/// Returns the command of this process with `--resume`.
pub(crate) fn resume_command(job: &Job<'_>) -> String {
    debug_assert!(job.run.checkpoint.is_some(), "only a checkpoint can be resumed");
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    resuming(&words)
}

fn resuming(words: &[OsString]) -> String {
    let mut line = String::from("prkdb");
    for word in words.iter().filter(|word| *word != "--resume") {
        line.push(' ');
        line.push_str(&quoted(word));
    }
    line.push_str(" --resume");
    line
}

/// Returns a word as it is, in quotes, or, where it has bytes that cannot be shown, with escapes.
fn quoted(word: &OsStr) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        _ => escaped(word.as_bytes()),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::from("$'");
    for byte in bytes {
        match byte {
            b'\'' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_shell_reads_the_words_as_they_were() {
        let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let words: Vec<OsString> = [
            &b"batch-put"[..],
            b"it's",
            b"",
            b"--resume",
            b"a\xff'\\b",
            "gr\u{fc}n".as_bytes(),
            b"x\n1",
        ]
        .map(word)
        .to_vec();
        let line = resuming(&words);
        let expected =
            "prkdb batch-put 'it'\\''s' '' $'a\\xff\\'\\\\b' 'gr\u{fc}n' $'x\\x0a1' --resume";
        assert_eq!(line, expected);
        let print = format!("printf '%s|' {}", line.strip_prefix("prkdb ").unwrap());
        let said = std::process::Command::new("bash").args(["-c", &print]).output().unwrap();
        assert_eq!(said.stdout, b"batch-put|it's||a\xff'\\b|gr\xc3\xbcn|x\n1|--resume|");
    }
}
