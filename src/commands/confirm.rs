//! Confirmations: three tiers by what a command can destroy.
//!
//! A reversible command asks on a terminal and goes on without one; a destructive one goes on only
//! with `--yes`; a severe one only when the name of its object is given again. Prompts stand on
//! stderr, and everything but a clear yes means no.

use std::io::{self, IsTerminal as _};

use dialoguer::{Confirm, Input, console::Term};

use crate::commands::{
    config::ConfirmPolicy,
    failure::{Failure, Result},
};

/// What the person and the profile say about confirmations.
#[derive(Clone, Debug)]
pub struct Confirmation {
    /// `--yes`.
    pub is_yes: bool,
    /// `--no-input`.
    pub is_silent: bool,
    /// The policy of the profile.
    pub policy: ConfirmPolicy,
    /// The name of a protected profile, shown in the prompt.
    pub protected_profile: Option<String>,
}

impl Confirmation {
    /// Asks before something destructive, such as the deletion of many keys.
    ///
    /// # Errors
    /// Exit 9 where the answer is no or nobody can be asked.
    pub fn destructive(&self, what: &str) -> Result {
        if self.is_yes {
            return Ok(());
        }
        if !self.can_ask() {
            return Err(self.refusal(what, "--yes").into());
        }
        let answer = Confirm::new()
            .with_prompt(self.prompt(&format!("{what}?")))
            .default(false)
            .interact_on_opt(&Term::stderr());
        match answer {
            Ok(Some(true)) => Ok(()),
            Ok(_) => Err(Failure::not_confirmed(format!("{what}: not confirmed")).into()),
            Err(error) => Err(unanswered(what, error)),
        }
    }

    /// Asks before something severe: the name must be typed, or given with `--confirm`.
    ///
    /// # Errors
    /// Exit 9 where the name differs or nobody can be asked.
    pub fn severe(&self, what: &str, name: &str, given: Option<&str>) -> Result {
        if let Some(given) = given {
            if given == name {
                return Ok(());
            }
            let message = format!("refusing to {what}: --confirm says '{given}'");
            return Err(Failure::not_confirmed(message)
                .hint(format!("pass --confirm {name}"))
                .into());
        }
        if !self.can_ask() {
            return Err(self.refusal(what, &format!("--confirm {name}")).into());
        }
        let answer: dialoguer::Result<String> = Input::new()
            .with_prompt(self.prompt(&format!("{what}: type its name to confirm")))
            .allow_empty(true)
            .interact_text_on(&Term::stderr());
        match answer {
            Ok(answer) if answer == name => Ok(()),
            Ok(_) => Err(Failure::not_confirmed(format!("{what}: not confirmed")).into()),
            Err(error) => Err(unanswered(what, error)),
        }
    }

    fn can_ask(&self) -> bool {
        !self.is_silent && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    fn refusal(&self, what: &str, flag: &str) -> Failure {
        let why = if self.is_silent { "--no-input" } else { "stdin is not a terminal" };
        Failure::not_confirmed(format!("refusing to {what} without confirmation ({why})"))
            .hint(format!("pass {flag}"))
    }

    fn prompt(&self, question: &str) -> String {
        match &self.protected_profile {
            Some(profile) => format!("[{profile}] {question}"),
            None => question.to_owned(),
        }
    }
}

/// The end of the input means no; Ctrl-C ends as the signal does.
fn unanswered(
    what: &str,
    dialoguer::Error::IO(error): dialoguer::Error,
) -> crate::commands::failure::Stop {
    if error.kind() == io::ErrorKind::Interrupted {
        return Failure::interrupted(
            crate::commands::exit::INTERRUPTED,
            format!("{what}: interrupted"),
        )
        .into();
    }
    Failure::not_confirmed(format!("{what}: not confirmed")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure::Stop;

    fn silent(is_yes: bool) -> Confirmation {
        Confirmation {
            is_yes,
            is_silent: true,
            policy: ConfirmPolicy::Tty,
            protected_profile: None,
        }
    }

    fn exit_and_hint(result: Result) -> (u8, String) {
        let Err(Stop::Failed(failure)) = result else { panic!("confirmed") };
        (failure.exit(), failure.hint_text().unwrap_or_default())
    }

    #[test]
    fn a_destructive_command_needs_yes() {
        assert!(silent(true).destructive("delete 3 keys").is_ok());
        let refused = exit_and_hint(silent(false).destructive("delete 3 keys"));
        assert_eq!(refused, (9, "pass --yes".into()));
    }

    #[test]
    fn yes_is_not_enough_for_a_severe_command() {
        let what = "drop collection 'orders'";
        let expected = (9, "pass --confirm orders".to_owned());
        assert_eq!(exit_and_hint(silent(true).severe(what, "orders", None)), expected);
        assert_eq!(exit_and_hint(silent(true).severe(what, "orders", Some("order"))), expected);
        assert!(silent(false).severe(what, "orders", Some("orders")).is_ok());
    }
}
