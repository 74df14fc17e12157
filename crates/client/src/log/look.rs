//! One look at the log: reading, checking, waiting for what is due, and keeping how far it went.

use std::thread;
use std::time::Instant;

use bytes::Bytes;
use candor_log::checkpoint::{CHECKPOINT_MAX_BYTES, SignedCheckpoint};
use candor_log::monitor::{Finding, Watch, WatchState};
use candor_log::policy::Policy;
use candor_log::state_map::AccountState;
use candor_log::tile::Prover;
use candor_vault::report::Cancel;
use candor_wire::Millis;
use candor_wire::api::StateReply;

use super::head::{self, LogError, Trust};
use super::source::CellTiles;
use super::state::{self, Conflict, StateError};
use super::watch::{self, Due, MapVersions};
use super::{
    CHECKPOINT_FILE, CONFIRM_POLL, CONFIRM_WAIT, ENTRIES_PER_RUN_MAX, PROMISE_MS, Trouble,
};
use crate::api::Api;
use crate::chain::Chain;
use crate::commands::{Failure, FailureKind};
use crate::device_store::Watched;
use crate::engine::{Engine, lock, unknown_chain};
use crate::memory::RememberedLog;

/// How often a state that contradicts its proof is asked for again: a cell that publishes the next
/// version between two of its own reads answers so once.
const CONTRADICTIONS_MAX: u32 = 2;

/// What the log has to show in this look.
struct Promise {
    owed: Option<AccountState>,
    since: Millis,
    is_due: bool,
    /// How many new entries are read at most.
    entries_max: u64,
}

/// What the state map says of the account.
pub(super) enum Said {
    /// Everything that is owed, and nothing else.
    Fine,
    /// Less than is owed; `None` if nothing at all.
    Late(Option<AccountState>),
    /// An older version than the newest one in the log.
    Outdated {
        /// The newest one that an earlier look found.
        newest: u64,
    },
    /// Something else than this device knows.
    Conflict(Conflict),
    /// What the cell said is not proven.
    Refused(StateError),
}

/// What one look at the log showed.
pub(super) struct Look {
    pub(super) chain: Chain,
    pub(super) checkpoint: SignedCheckpoint,
    pub(super) reply: StateReply,
    pub(super) watch: Watch,
    pub(super) versions: MapVersions,
    pub(super) new_entries: u64,
    pub(super) findings: Vec<Finding>,
    pub(super) said: Said,
    /// Whether what is late is missing: it was waited for.
    pub(super) is_due: bool,
}

impl Look {
    /// Whether the cell showed an older version of the map than the log has by now. It may have been
    /// published meanwhile: only a second look tells.
    const fn is_behind(&self) -> bool {
        self.reply.map_version < self.versions.newest
    }

    /// Whether something is missing that may still come.
    fn is_late(&self) -> bool {
        let is_missing = |finding: &Finding| matches!(finding, Finding::Missing { .. });
        let is_state_late = match self.said {
            Said::Late(_) => self.is_due,
            Said::Outdated { .. } => true,
            _ => false,
        };
        is_state_late || self.findings.iter().any(is_missing)
    }

    fn is_contradicted(&self) -> bool {
        matches!(&self.said, Said::Refused(StateError::Contradiction))
    }

    pub(super) fn found(&self) -> u64 {
        let places = self.chain.records().iter();
        let found = places.filter(|record| self.watch.leaf_of(record.sequence).is_some());
        found.count() as u64
    }
}

impl Engine {
    /// What the log owes: after a backup what was known at an earlier look, once that is a while ago; to
    /// a person who asks, everything.
    fn promise(&self, is_asked: bool, now: Millis) -> Result<Promise, Failure> {
        if is_asked {
            return Ok(Promise {
                owed: self.known_state(),
                since: now,
                is_due: true,
                entries_max: u64::MAX,
            });
        }
        let watched = self.store().watched()?;
        let owed = watched.and_then(|watched| {
            let state = AccountState::from_bytes(&watched.owed).ok()?;
            Some((state, watched.owed_since))
        });
        Ok(match owed {
            None => Promise {
                owed: None,
                since: now,
                is_due: false,
                entries_max: ENTRIES_PER_RUN_MAX,
            },
            Some((owed, since)) => Promise {
                // A clock that was set back makes it due: waiting a little is harmless.
                is_due: !(0..PROMISE_MS).contains(&now.0.saturating_sub(since.0)),
                owed: Some(owed),
                since,
                entries_max: ENTRIES_PER_RUN_MAX,
            },
        })
    }

    /// What this device knows now of what the state map has to say.
    fn known_state(&self) -> Option<AccountState> {
        let heads = self.memory.heads();
        self.with_chain(|chain| state::known(chain.view(), &heads))
    }

    /// Fetches and checks the checkpoint, and remembers it. The chain was read after it was fetched.
    pub(crate) fn accept(
        &self,
        file: Option<Bytes>,
        chain: &Chain,
        policy: Option<Policy>,
        tiles: &CellTiles<'_>,
    ) -> Result<SignedCheckpoint, Failure> {
        let remembered = self.memory.log();
        let trust = match Trust::new(chain, policy) {
            Err(LogError::NoLog) if remembered.is_some() => return Err(LogError::Withheld.into()),
            trust => trust?,
        };
        let Some(bytes) = file else {
            let error = match remembered {
                Some(_) => LogError::Withheld,
                None => LogError::NotYet,
            };
            return Err(error.into());
        };
        let shown = trust.verify(&bytes)?;
        let seen = remembered.as_ref().and_then(RememberedLog::checkpoint);
        if let Some(seen) = &seen {
            head::check_continues(seen, &shown.0, tiles, &self.home)?;
        }
        let now = self.now();
        let (kept, next) = head::remember(remembered, seen, shown, &trust, now);
        self.memory.remember_log(next)?;
        let is_vouched = head::is_fresh(&trust.standing(&kept), now);
        self.store().note_look(is_vouched, now)?;
        Ok(kept)
    }

    /// `newest_map` is the newest version of the state map that an earlier look found in the log: a cell
    /// has to show that one, or a newer one.
    fn look(
        &self,
        api: &Api,
        promise: &Promise,
        newest_map: u64,
        cancel: &Cancel,
    ) -> Result<Look, Failure> {
        let policy = head::load_policy(&self.home)?;
        let account = self.facts.account;
        // In this order: see the module's description. A cell that does not answer the first question
        // must not keep the others from being asked: its log may have been rolled back.
        let reply = self.runtime.block_on(api.read_state(account));
        let file = self.read_checkpoint(api)?;
        let at = self.now();
        self.sync_chain(api)?;
        let chain = self.with_chain(Chain::clone).ok_or_else(unknown_chain)?;
        let tiles = CellTiles::new(api, &self.runtime, cancel);
        let checkpoint = self.accept(file, &chain, policy, &tiles)?;
        let reply = reply?;
        let prover = Prover::new(&tiles, checkpoint.head());
        let due = Due {
            through: promise
                .owed
                .as_ref()
                .filter(|_| promise.is_due)
                .map(|owed| owed.sequence),
            at,
        };
        let (watch, versions, before) = self.scan(&chain, &prover, due, promise.entries_max)?;
        let findings = watch.findings(at, 0).map_err(|error| Failure::of(&error))?;
        let said = if reply.map_version < newest_map {
            Said::Outdated { newest: newest_map }
        } else {
            self.said(&reply, &chain, &prover, promise.owed.as_ref())?
        };
        Ok(Look {
            new_entries: watch.position() - before,
            chain,
            checkpoint,
            reply,
            watch,
            versions,
            findings,
            said,
            is_due: promise.is_due,
        })
    }

    pub(crate) fn read_checkpoint(&self, api: &Api) -> Result<Option<Bytes>, Failure> {
        let reading = api.read_log_file(CHECKPOINT_FILE, CHECKPOINT_MAX_BYTES);
        Ok(self.runtime.block_on(reading)?)
    }

    /// Reads the entries that are new since the last look. Also tells from which place on.
    fn scan(
        &self,
        chain: &Chain,
        prover: &Prover<'_, CellTiles<'_>>,
        due: Due,
        entries_max: u64,
    ) -> Result<(Watch, MapVersions, u64), Failure> {
        let size = prover.head().size;
        let (state, mut versions) = self.resume(prover)?;
        let before = state.position();
        let mut watch = {
            let keys = self.keys();
            let stated = watch::stated(chain, &keys, due)?;
            watch::begin(state, &stated, &keys, size)?
        };
        let save = |watch: &Watch, versions: &MapVersions| self.save(prover, watch, versions, None);
        let until = size.min(before.saturating_add(entries_max));
        watch::scan(prover, &mut watch, &mut versions, until, &save)?;
        if watch.position() < size {
            save(&watch, &versions)?;
            return Err(unfinished(watch.position(), size));
        }
        Ok((watch, versions, before))
    }

    /// Where the last look ended, if the log that it looked at is the beginning of this one. Else from
    /// its first entry: a device that lost its memory, but not its database, has to look again.
    fn resume(
        &self,
        prover: &Prover<'_, CellTiles<'_>>,
    ) -> Result<(WatchState, MapVersions), Failure> {
        let fresh = || (WatchState::new(), MapVersions::none());
        let Some(watched) = self.store().watched()? else {
            return Ok(fresh());
        };
        let state = WatchState::from_bytes(&watched.state).ok();
        let state = state.filter(|state| state.position() == watched.size);
        let Some(state) = state.filter(|state| state.position() <= prover.head().size) else {
            return Ok(fresh());
        };
        let root = prover.root_of(watched.size).map_err(LogError::Tiles)?;
        if root.0 != watched.root {
            return Ok(fresh());
        }
        let versions = MapVersions {
            newest: watched.map_version,
            broken: None,
        };
        Ok((state, versions))
    }

    /// Keeps how far the log was looked at. Without `owed` the look is not at its end, and what is owed
    /// stays as it was.
    fn save(
        &self,
        prover: &Prover<'_, CellTiles<'_>>,
        watch: &Watch,
        versions: &MapVersions,
        owed: Option<(&AccountState, Millis)>,
    ) -> Result<(), Failure> {
        let size = watch.position();
        let root = prover.root_of(size).map_err(LogError::Tiles)?;
        let (owed, owed_since, checked) = match owed {
            Some((owed, since)) => (owed.to_bytes(), since, self.now()),
            None => match self.store().watched()? {
                Some(before) => (before.owed, before.owed_since, before.checked),
                None => (Vec::new(), Millis(0), Watched::NEVER),
            },
        };
        self.store().put_watched(&Watched {
            size,
            root: root.0,
            map_version: versions.newest,
            state: watch.state().to_bytes(),
            owed,
            owed_since,
            checked,
        })?;
        Ok(())
    }

    /// What the state map says, and whether that is what it has to say. A version of it that was proven
    /// is remembered; an older one is a rollback.
    fn said(
        &self,
        reply: &StateReply,
        chain: &Chain,
        prover: &Prover<'_, CellTiles<'_>>,
        owed: Option<&AccountState>,
    ) -> Result<Said, Failure> {
        let secret = state::secret_of(chain).ok_or_else(unknown_chain)?;
        let state = match state::prove(reply, &secret, prover) {
            Err(StateError::Tiles(error)) => return Err(LogError::Tiles(error).into()),
            Err(error) => return Ok(Said::Refused(error)),
            Ok(state) => state,
        };
        if let Some(log) = self.memory.log() {
            self.memory.remember_log(RememberedLog {
                map_version: reply.map_version,
                ..log
            })?;
        }
        let heads = self.memory.heads();
        let conflict = state
            .as_ref()
            .and_then(|state| state::conflict(state, chain.view(), &heads));
        if let Some(conflict) = conflict {
            return Ok(Said::Conflict(conflict));
        }
        let is_reached = owed.is_none_or(|owed| {
            state
                .as_ref()
                .is_some_and(|state| state::reaches(state, owed, chain.view()))
        });
        Ok(if is_reached {
            Said::Fine
        } else {
            Said::Late(state)
        })
    }

    /// Looks at the log until what is due is there, or was waited for long enough. Then keeps how far it
    /// looked, and says what is wrong.
    pub(super) fn watch_log(
        &self,
        api: &Api,
        is_asked: bool,
        cancel: &Cancel,
    ) -> Result<(Look, Vec<Trouble>), Failure> {
        let _turn = lock(&self.log_turn);
        let promise = self.promise(is_asked, self.now())?;
        let began = Instant::now();
        let mut newest_map = 0;
        let mut looks = 0;
        let look = loop {
            let look = self.look(api, &promise, newest_map, cancel)?;
            looks += 1;
            newest_map = look.versions.newest;
            let is_waited_for = look.is_late() || self.freezes_anew()?;
            let waits = is_waited_for && began.elapsed() < CONFIRM_WAIT;
            let repeats = (look.is_contradicted() && looks <= CONTRADICTIONS_MAX)
                || (look.is_behind() && looks == 1);
            if cancel.is_cancelled() {
                return Err(crate::failure::interrupted());
            }
            if !waits && !repeats {
                break look;
            }
            thread::sleep(CONFIRM_POLL);
        };
        let tiles = CellTiles::new(api, &self.runtime, cancel);
        let prover = Prover::new(&tiles, look.checkpoint.head());
        let known = self.known_state();
        let owed = match (&look.said, &promise.owed, &known) {
            // It goes on owing what it owed.
            (Said::Late(_), Some(owed), _) => Some((owed, promise.since)),
            (_, _, Some(known)) => Some((known, self.now())),
            _ => None,
        };
        self.save(&prover, &look.watch, &look.versions, owed)?;
        let mut troubles = self.troubles_of(&look)?;
        troubles.extend(self.freeze()?);
        Ok((look, troubles))
    }
}

fn unfinished(position: u64, size: u64) -> Failure {
    Failure::new(
        FailureKind::Failed,
        format!(
            "{position} of its {size} entries were looked at, and the next backup goes on with the others"
        ),
    )
    .with_hint("`candor log monitor` looks at all of them")
}
