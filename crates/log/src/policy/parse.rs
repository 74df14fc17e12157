//! Reading a policy, line by line.

use std::collections::{HashMap, HashSet};

use super::{
    Group, LogEntry, Member, POLICY_GROUPS_MAX, POLICY_LOGS_MAX, POLICY_MAX_BYTES,
    POLICY_WITNESSES_MAX, Policy, PolicyError, PolicyFault, WitnessEntry,
};
use crate::note::{KeyKind, VerifierKey, decimal};

pub(super) fn parse(bytes: &[u8]) -> Result<Policy, PolicyError> {
    let at = |line: usize| move |fault| PolicyError { line, fault };
    if bytes.len() > POLICY_MAX_BYTES {
        return Err(at(1)(PolicyFault::TooLong));
    }
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // A file that ends with a newline has nothing after it.
    let ended = lines.last().is_some_and(|rest| rest.is_empty());
    let mut reader = Reader::default();
    for (place, line) in lines.iter().enumerate() {
        reader.line(line).map_err(at(place + 1))?;
    }
    if !ended {
        return Err(at(lines.len())(PolicyFault::NotEnded));
    }
    let quorum = reader.quorum;
    let quorum = quorum.ok_or_else(|| at((lines.len() - 1).max(1))(PolicyFault::NoQuorum))?;
    Ok(Policy {
        logs: reader.logs,
        witnesses: reader.witnesses,
        groups: reader.groups,
        quorum,
    })
}

#[derive(Default)]
struct Reader<'a> {
    logs: Vec<LogEntry>,
    witnesses: Vec<WitnessEntry>,
    groups: Vec<Group>,
    quorum: Option<Option<Member>>,
    names: HashMap<&'a [u8], Member>,
    members: HashSet<&'a [u8]>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a [u8]) -> Result<(), PolicyFault> {
        if line
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(PolicyFault::Control);
        }
        let words = line.split(|byte| *byte == b' ' || *byte == b'\t');
        let words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
        match words[..] {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] => self.log(key, None),
            [b"log", key, url] => self.log(key, Some(url)),
            [b"witness", name, key] => self.witness(name, key, None),
            [b"witness", name, key, url] => self.witness(name, key, Some(url)),
            [b"group", name, threshold, ref members @ ..] if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            [b"quorum", name] => self.quorum(name),
            [b"log" | b"witness" | b"group" | b"quorum", ..] => Err(PolicyFault::Words),
            _ => Err(PolicyFault::Keyword),
        }
    }

    fn log(&mut self, key: &[u8], url: Option<&[u8]>) -> Result<(), PolicyFault> {
        let key = key_of(key, KeyKind::Log)?;
        if self.logs.iter().any(|log| log.key.key() == key.key()) {
            return Err(PolicyFault::DuplicateKey);
        }
        limit(&self.logs, POLICY_LOGS_MAX)?;
        let url = url.map(text);
        self.logs.push(LogEntry { key, url });
        Ok(())
    }

    fn witness(
        &mut self,
        name: &'a [u8],
        key: &[u8],
        url: Option<&[u8]>,
    ) -> Result<(), PolicyFault> {
        let key = key_of(key, KeyKind::Cosigner)?;
        let mut known = self.witnesses.iter();
        if known.any(|witness| witness.key.key() == key.key()) {
            return Err(PolicyFault::DuplicateKey);
        }
        limit(&self.witnesses, POLICY_WITNESSES_MAX)?;
        self.define(name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(WitnessEntry {
            name: text(name),
            key,
            url: url.map(text),
        });
        Ok(())
    }

    fn group(
        &mut self,
        name: &'a [u8],
        threshold: &[u8],
        names: &[&'a [u8]],
    ) -> Result<(), PolicyFault> {
        limit(&self.groups, POLICY_GROUPS_MAX)?;
        let mut members = Vec::with_capacity(names.len());
        for member in names {
            members.push(self.defined(member)?);
            if !self.members.insert(member) {
                return Err(PolicyFault::MemberTwice);
            }
        }
        let threshold = match threshold {
            b"all" => members.len(),
            b"any" => 1,
            digits => number(digits).ok_or(PolicyFault::Threshold)?,
        };
        if !(1..=members.len()).contains(&threshold) {
            return Err(PolicyFault::Threshold);
        }
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { threshold, members });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), PolicyFault> {
        if self.quorum.is_some() {
            return Err(PolicyFault::SecondQuorum);
        }
        self.quorum = Some(match name {
            b"none" => None,
            name => Some(self.defined(name)?),
        });
        Ok(())
    }

    fn defined(&self, name: &[u8]) -> Result<Member, PolicyFault> {
        let member = self.names.get(name).copied();
        member.ok_or(PolicyFault::UnknownName)
    }

    fn define(&mut self, name: &'a [u8], member: Member) -> Result<(), PolicyFault> {
        if name == b"none" || self.names.contains_key(name) {
            return Err(PolicyFault::NameTaken);
        }
        self.names.insert(name, member);
        Ok(())
    }
}

fn limit<T>(have: &[T], limit: usize) -> Result<(), PolicyFault> {
    if have.len() < limit {
        Ok(())
    } else {
        Err(PolicyFault::TooMany { limit })
    }
}

fn key_of(octets: &[u8], kind: KeyKind) -> Result<VerifierKey, PolicyFault> {
    let format = PolicyFault::Key(crate::note::KeyError::Format);
    let key = std::str::from_utf8(octets).map_err(|_| format)?;
    let key = VerifierKey::parse(key).map_err(PolicyFault::Key)?;
    if key.kind() == kind {
        Ok(key)
    } else {
        Err(PolicyFault::KeyKind)
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    decimal(std::str::from_utf8(digits).ok()?)?.try_into().ok()
}

/// Octets as a text for people: UTF-8 as it is, everything else escaped.
fn text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => octets.escape_ascii().to_string(),
    }
}
