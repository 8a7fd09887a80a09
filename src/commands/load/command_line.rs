//! The command that goes on with a run, as a shell reads it.

use std::ffi::OsString;

use super::job::Job;
use crate::commands::shell::quoted;

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
