//! C2SP tlog-policy: which logs and witnesses somebody trusts, and how many of them are enough.
//!
//! The whole syntax is read: `log`, `witness`, `group` with `all`, `any` or a number, groups of
//! groups, `quorum`, `none`. Names are octets, compared as such. Keys are Ed25519: a policy that
//! needs other keys is refused, with the line.

mod parse;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::note::{KeyError, VerifierKey};

/// Longest policy, in bytes: everything that the limits below allow, and a page of remarks.
pub const POLICY_MAX_BYTES: usize = 256 * 1024;

/// Most logs of a policy. C2SP asks for 32; twice that.
pub const POLICY_LOGS_MAX: usize = 64;

/// Most witnesses of a policy. C2SP asks for 32; twice that.
pub const POLICY_WITNESSES_MAX: usize = 64;

/// Most groups of a policy. C2SP asks for 32; twice that.
pub const POLICY_GROUPS_MAX: usize = 64;

/// A log of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its key, whose name is its origin.
    pub key: VerifierKey,
    /// Where it is, if the policy says so. Not interpreted.
    pub url: Option<String>,
}

/// A witness of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessEntry {
    /// Its name in this policy. Octets that are not UTF-8 are shown as `\x…`.
    pub name: String,
    /// Its key.
    pub key: VerifierKey,
    /// Where it is, if the policy says so. Not interpreted.
    pub url: Option<String>,
}

/// A witness or a group, by its place in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// So many of these.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    threshold: usize,
    members: Vec<Member>,
}

/// A trust policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<LogEntry>,
    witnesses: Vec<WitnessEntry>,
    groups: Vec<Group>,
    /// `None` for `quorum none`.
    quorum: Option<Member>,
}

/// A policy cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the policy: {fault}")]
pub struct PolicyError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: PolicyFault,
}

/// What is wrong with a line of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// Longer than [`POLICY_MAX_BYTES`].
    #[error("a policy has at most {POLICY_MAX_BYTES} bytes")]
    TooLong,
    /// A control character other than a tab.
    #[error("a control character")]
    Control,
    /// The last line does not end with a newline: the end may be missing.
    #[error("the line does not end")]
    NotEnded,
    /// Not `log`, `witness`, `group`, `quorum` or a remark.
    #[error("a line begins with log, witness, group, quorum or #")]
    Keyword,
    /// Too few or too many words.
    #[error("too few or too many words")]
    Words,
    /// Not a key.
    #[error("not a key: {0}")]
    Key(KeyError),
    /// A witness's key at a log, or the other way round.
    #[error("the key is not of the kind that signs here")]
    KeyKind,
    /// The same key twice.
    #[error("the key is already in the policy")]
    DuplicateKey,
    /// The name is `none` or already taken.
    #[error("the name is already taken")]
    NameTaken,
    /// A name that no line before has defined.
    #[error("no line before defines this name")]
    UnknownName,
    /// A name that is a group's member already.
    #[error("the name is already a member of a group")]
    MemberTwice,
    /// Not `all`, `any` or a number from 1 to the number of members.
    #[error("a group needs all, any, or 1 up to the number of its members")]
    Threshold,
    /// More than one `quorum`.
    #[error("there is already a quorum")]
    SecondQuorum,
    /// No `quorum` up to the last line.
    #[error("there is no quorum")]
    NoQuorum,
    /// More logs, witnesses or groups than the limits.
    #[error("more than {limit} of these")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
}

/// How well a checkpoint is witnessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// By a quorum.
    Witnessed {
        /// Names of all witnesses of the policy that cosigned it, in its order.
        witnesses: Vec<String>,
        /// The newest time, in POSIX seconds, such that the witnesses that cosigned at that time or
        /// later are still a quorum: how fresh the checkpoint is by the word of a whole quorum.
        time_s: u64,
    },
    /// By fewer. Also what a policy with `quorum none` says: nobody was asked.
    Unwitnessed {
        /// Names of the witnesses of the policy that cosigned it, in its order.
        have: Vec<String>,
    },
}

/// A checkpoint is not acceptable to a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// None of the logs signed it.
    #[error("the checkpoint is not signed by a log of the policy")]
    Log(#[source] CheckpointError),
    /// Too few witnesses cosigned it.
    #[error("the checkpoint is cosigned by too few witnesses")]
    Unwitnessed {
        /// Names of those that did.
        have: Vec<String>,
    },
}

impl Policy {
    /// Reads a policy. Errors name the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        parse::parse(bytes)
    }

    /// Its logs. May be empty, when the log is known from elsewhere.
    pub fn logs(&self) -> &[LogEntry] {
        &self.logs
    }

    /// Its witnesses.
    pub fn witnesses(&self) -> &[WitnessEntry] {
        &self.witnesses
    }

    /// Whether it demands any cosignature.
    pub const fn needs_witnesses(&self) -> bool {
        self.quorum.is_some()
    }

    /// How well a checkpoint is witnessed. Says nothing about who logged it: [`Self::check`] does.
    pub fn standing(&self, checkpoint: &SignedCheckpoint) -> Standing {
        let times: Vec<Option<u64>> = self
            .witnesses
            .iter()
            .map(|witness| checkpoint.cosigned_by(&witness.key))
            .collect();
        let have = (self.witnesses.iter().zip(&times))
            .filter(|(_, time)| time.is_some())
            .map(|(witness, _)| witness.name.clone())
            .collect();
        match self.quorum.and_then(|quorum| self.time_of(quorum, &times)) {
            Some(time_s) => Standing::Witnessed {
                witnesses: have,
                time_s,
            },
            None => Standing::Unwitnessed { have },
        }
    }

    /// The newest time at which this member still witnesses: for a group, the time of its k-th newest
    /// member. Groups have only members from lines before, so this ends.
    fn time_of(&self, member: Member, times: &[Option<u64>]) -> Option<u64> {
        let group = match member {
            Member::Witness(place) => return times[place],
            Member::Group(place) => &self.groups[place],
        };
        let members = group.members.iter();
        let mut members: Vec<u64> = members
            .filter_map(|member| self.time_of(*member, times))
            .collect();
        members.sort_unstable_by(|a, b| b.cmp(a));
        members.get(group.threshold - 1).copied()
    }

    /// Checks that one of the logs signed the checkpoint (any log will do if the policy lists none:
    /// then the caller checks it) and that the quorum holds. With `quorum none` it always does, and
    /// the standing is [`Standing::Unwitnessed`].
    pub fn check(&self, checkpoint: &SignedCheckpoint) -> Result<Standing, PolicyRefusal> {
        self.check_log(checkpoint).map_err(PolicyRefusal::Log)?;
        match self.standing(checkpoint) {
            Standing::Unwitnessed { have } if self.needs_witnesses() => {
                Err(PolicyRefusal::Unwitnessed { have })
            }
            standing => Ok(standing),
        }
    }

    /// One key of the origin is enough; a bad signature by any of them spoils the checkpoint.
    fn check_log(&self, checkpoint: &SignedCheckpoint) -> Result<(), CheckpointError> {
        let mut signed = if self.logs.is_empty() {
            Ok(())
        } else {
            Err(CheckpointError::OtherLog)
        };
        let origin = checkpoint.origin();
        for log in self.logs.iter().filter(|log| log.key.name() == origin) {
            match checkpoint.is_signed_by(&log.key) {
                Ok(()) => signed = Ok(()),
                Err(CheckpointError::NotSigned) if signed.is_ok() => {}
                Err(CheckpointError::NotSigned) => signed = Err(CheckpointError::NotSigned),
                Err(error) => return Err(error),
            }
        }
        signed
    }
}
