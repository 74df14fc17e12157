//! What goes wrong, as people get it: a kind, a sentence, a hint, and the exit code.
//!
//! This is the one place where a kind becomes a code. The codes are a contract with scripts.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

/// Most causes that are shown; a longer chain says nothing more to a person.
const CAUSES_MAX: usize = 8;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Anything without a kind of its own.
    Failed,
    /// The command makes no sense as it was given.
    Usage,
    /// There is no consent for this service.
    NoConsent,
    /// Tampering, rollback or a fork was detected; nothing was written.
    Integrity,
    /// The cell cannot be reached; work is kept.
    Unreachable,
    /// Refused by policy: quota, region, revoked device.
    Policy,
    /// Done, but not for every file.
    Partial,
    /// The person stopped it.
    Interrupted,
}

impl Kind {
    /// The exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            // An interruption has no code of its own: to a script, the work is not done.
            Self::Failed | Self::Interrupted => 1,
            Self::Usage => 2,
            Self::NoConsent => 3,
            Self::Integrity => 4,
            Self::Unreachable => 5,
            Self::Policy => 6,
            Self::Partial => 7,
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// Decides the exit code.
    pub(crate) kind: Kind,
    /// What happened.
    pub(crate) sentence: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// Causes, outermost first.
    pub(crate) causes: Vec<String>,
}

/// What a command of this program returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with a sentence alone.
    pub(crate) fn new(kind: Kind, sentence: impl Into<String>) -> Self {
        Self {
            kind,
            sentence: sentence.into(),
            hint: None,
            causes: Vec::new(),
        }
    }

    /// The command line makes no sense.
    #[cfg(feature = "device")]
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Usage, sentence)
    }

    /// Something failed because of `error`, whose chain becomes the causes.
    pub(crate) fn because(sentence: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(Kind::Failed, sentence);
        let chain = core::iter::successors(Some(error), |error: &&(dyn Error + 'static)| {
            (*error).source()
        });
        failure.causes = chain.take(CAUSES_MAX).map(ToString::to_string).collect();
        failure
    }

    /// The same with another kind.
    pub(crate) const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same with a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As it is printed: the sentence, its causes, the hint.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}", sentence_of(&self.sentence));
        for cause in self.causes.iter().filter(|cause| **cause != self.sentence) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  because: {}", one_line(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\nhint: {}", one_line(hint));
        }
        text
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

/// One sentence, ended.
fn sentence_of(text: &str) -> String {
    let text = one_line(text);
    if text.ends_with(['.', '!', '?']) {
        text
    } else {
        format!("{text}.")
    }
}

/// Names of files and words of a server can be in a sentence: no line breaks or terminal commands
/// get through.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(feature = "device")]
impl From<candor_client::commands::Failure> for Failure {
    fn from(failure: candor_client::commands::Failure) -> Self {
        use candor_client::commands::FailureKind;
        let kind = match failure.kind {
            FailureKind::Failed => Kind::Failed,
            FailureKind::Usage => Kind::Usage,
            FailureKind::NoConsent => Kind::NoConsent,
            FailureKind::Integrity => Kind::Integrity,
            FailureKind::Unreachable => Kind::Unreachable,
            FailureKind::Policy => Kind::Policy,
            FailureKind::Partial => Kind::Partial,
            FailureKind::Interrupted => Kind::Interrupted,
        };
        Self {
            kind,
            sentence: failure.sentence,
            hint: failure.hint,
            causes: failure.causes,
        }
    }
}

#[cfg(feature = "device")]
impl From<Failure> for candor_client::commands::Failure {
    fn from(failure: Failure) -> Self {
        use candor_client::commands::FailureKind;
        let kind = match failure.kind {
            Kind::Failed => FailureKind::Failed,
            Kind::Usage => FailureKind::Usage,
            Kind::NoConsent => FailureKind::NoConsent,
            Kind::Integrity => FailureKind::Integrity,
            Kind::Unreachable => FailureKind::Unreachable,
            Kind::Policy => FailureKind::Policy,
            Kind::Partial => FailureKind::Partial,
            Kind::Interrupted => FailureKind::Interrupted,
        };
        Self {
            kind,
            sentence: failure.sentence,
            hint: failure.hint,
            causes: failure.causes,
        }
    }
}

/// Gives an error of the system its sentence.
pub(crate) trait Doing<T> {
    /// `cannot WHAT`, with the error as the cause.
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Error + 'static> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::because(format!("cannot {}", what()), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        let codes = [
            (Kind::Failed, 1),
            (Kind::Usage, 2),
            (Kind::NoConsent, 3),
            (Kind::Integrity, 4),
            (Kind::Unreachable, 5),
            (Kind::Policy, 6),
            (Kind::Partial, 7),
            (Kind::Interrupted, 1),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.code(), code);
        }
    }

    #[test]
    fn a_failure_reads_as_sentence_causes_and_hint() {
        let failure = Failure::because(
            "cannot read the file",
            &std::io::Error::other("the disk is on fire"),
        )
        .hint("try another disk");
        let expected =
            "error: cannot read the file.\n  because: the disk is on fire\nhint: try another disk";
        assert_eq!(failure.text(), expected);
    }

    #[test]
    fn no_escape_sequence_reaches_the_terminal() {
        let text = Failure::new(Kind::Failed, "cannot read \u{1b}[2Jname\nhint: rm").text();
        assert_eq!(text, "error: cannot read \u{fffd}[2Jname\u{fffd}hint: rm.");
    }
}
