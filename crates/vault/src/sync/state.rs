//! The base of a synced folder, kept on the device: one row for each name that folder and vault have in common.
//!
//! Folders have numbers, and a row belongs to the number of its folder, so that a folder moves with everything
//! below it by moving one row. What a round wants to record, but may record only once the head moved, waits in a
//! table of its own. The file can always be deleted: a round without a base finds both sides equal where they
//! are, and keeps both where they are not.

use std::path::Path;

use candor_wire::ObjectId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::names::is_conflict_name;
use super::record::{Row, Stamp};
use crate::node::References;

/// What the index of copies holds, in the words that a question for them has to use, too; the mark is
/// [`super::names::CONFLICT_MARK`].
macro_rules! copies {
    () => {
        "held = 1 AND instr(name, CAST(' (conflict ' AS BLOB)) > 0"
    };
}

/// What makes an insertion take the place of a row of that name, as a change of it, which the sums follow.
macro_rules! or_replace {
    () => {
        " ON CONFLICT DO UPDATE SET child = excluded.child, complete = excluded.complete,
             held = excluded.held, stamp = excluded.stamp, inode = excluded.inode, entry = excluded.entry"
    };
}

/// Version of the file's tables. A file of version 1 lacks the sums and the index of copies, which are added.
const STATE_VERSION: i64 = 2;

/// How many heads are remembered to find the newest one that a cell still has after it was put back: days of constant
/// change.
const HEADS_MAX: i64 = 20_000;

/// The folder's own number.
pub(crate) const TOP: i64 = 1;

const TABLES: &str =
    "DROP TABLE IF EXISTS entry; DROP TABLE IF EXISTS pending; DROP TABLE IF EXISTS top;
     DROP TABLE IF EXISTS head;
     CREATE TABLE entry (folder INTEGER NOT NULL, name BLOB NOT NULL, child INTEGER,
         complete INTEGER NOT NULL, held INTEGER NOT NULL, stamp BLOB NOT NULL, inode INTEGER,
         entry BLOB NOT NULL, PRIMARY KEY (folder, name)) WITHOUT ROWID;
     CREATE INDEX by_inode ON entry (inode) WHERE inode IS NOT NULL;
     CREATE INDEX by_child ON entry (child) WHERE child IS NOT NULL;
     CREATE TABLE pending (folder INTEGER NOT NULL, name BLOB NOT NULL, child INTEGER,
         stamp BLOB, inode INTEGER, entry BLOB, PRIMARY KEY (folder, name)) WITHOUT ROWID;
     CREATE TABLE top (complete INTEGER NOT NULL, parts BLOB NOT NULL, counter INTEGER NOT NULL,
         put_back INTEGER NOT NULL);
     INSERT INTO top VALUES (0, x'', 0, 0);
     CREATE TABLE head (manifest BLOB PRIMARY KEY, counter INTEGER NOT NULL) WITHOUT ROWID;";

/// What is asked for each second, kept with every change, so that a folder with a million names is not read for it:
/// how many files and folders are held, and which of them may be copies that were kept.
const SUMS: &str = concat!(
    "DROP TABLE IF EXISTS sum;
     CREATE TABLE sum (files INTEGER NOT NULL, folders INTEGER NOT NULL);
     INSERT INTO sum SELECT count(*) FILTER (WHERE child IS NULL), count(child) FROM entry WHERE held = 1;
     CREATE TRIGGER sum_insert AFTER INSERT ON entry WHEN new.held = 1 BEGIN
         UPDATE sum SET files = files + (new.child IS NULL), folders = folders + (new.child IS NOT NULL); END;
     CREATE TRIGGER sum_delete AFTER DELETE ON entry WHEN old.held = 1 BEGIN
         UPDATE sum SET files = files - (old.child IS NULL), folders = folders - (old.child IS NOT NULL); END;
     CREATE TRIGGER sum_update AFTER UPDATE OF child, held ON entry
         WHEN old.held <> new.held OR (old.child IS NULL) <> (new.child IS NULL) BEGIN
         UPDATE sum SET files = files - (old.held AND old.child IS NULL) + (new.held AND new.child IS NULL),
             folders = folders - (old.held AND old.child IS NOT NULL) + (new.held AND new.child IS NOT NULL); END;
     CREATE INDEX copies ON entry (folder, name) WHERE ",
    copies!(),
    ";"
);

/// Why the record of a folder failed.
#[derive(Debug, thiserror::Error)]
#[error("the record of a synced folder failed")]
pub struct StateError(#[from] rusqlite::Error);

/// The record of one synced folder. Used by one round at a time.
#[derive(Debug)]
pub struct State {
    connection: Connection,
    next: i64,
}

impl State {
    /// Opens the record, making it if it is not there. A damaged one is begun anew.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        match Self::over(Connection::open(path)?) {
            Err(StateError(error)) if is_damage(&error) => {
                Self::delete(path);
                Self::over(Connection::open(path)?)
            }
            opened => opened,
        }
    }

    /// A record in memory.
    pub fn in_memory() -> Result<Self, StateError> {
        Self::over(Connection::open_in_memory()?)
    }

    /// Removes the files of a record. What cannot be removed shows up when it is opened again.
    pub fn delete(path: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            let _ = std::fs::remove_file(file);
        }
    }

    fn over(connection: Connection) -> Result<Self, StateError> {
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -8192;
             PRAGMA temp_store = MEMORY;",
        )?;
        connection.set_prepared_statement_cache_capacity(32);
        if version_of(&connection)? != STATE_VERSION {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            // Another one may have made it since.
            let version = version_of(&connection)?;
            if !(1..=STATE_VERSION).contains(&version) {
                connection.execute_batch(TABLES)?;
            }
            if version != STATE_VERSION {
                connection.execute_batch(SUMS)?;
                connection.pragma_update(None, "user_version", STATE_VERSION)?;
            }
            connection.execute_batch("COMMIT")?;
        }
        Self::opened(connection)
    }

    fn opened(connection: Connection) -> Result<Self, StateError> {
        let next: i64 = connection.query_row(
            // Each from the end of an index: a folder with a million names is opened as fast as an empty one.
            "SELECT max(1, (SELECT coalesce(max(folder), 1) FROM entry),
                 (SELECT coalesce(max(child), 1) FROM entry WHERE child IS NOT NULL)) + 1",
            [],
            |row| row.get(0),
        )?;
        Ok(Self { connection, next })
    }

    /// Begins a stretch of changes that reach the disk together.
    pub(crate) fn begin(&mut self) -> Result<(), StateError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN")?;
        }
        Ok(())
    }

    /// Ends the stretch.
    pub(crate) fn end(&mut self) -> Result<(), StateError> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    /// Gives up what was not ended, as a crash would.
    pub(crate) fn abandon(&mut self) -> Result<(), StateError> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }

    /// A number for a folder that has none yet.
    pub(crate) fn new_folder(&mut self) -> i64 {
        self.next += 1;
        self.next - 1
    }

    /// The names of a folder, ascending.
    pub(crate) fn rows(&self, folder: i64) -> Result<Vec<Row>, StateError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, child, complete, held, stamp, entry FROM entry WHERE folder = ?1 ORDER BY name",
        )?;
        let rows = statement.query_map([folder], read_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One name of a folder.
    pub(crate) fn row(&self, folder: i64, name: &[u8]) -> Result<Option<Row>, StateError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT name, child, complete, held, stamp, entry FROM entry WHERE folder = ?1 AND name = ?2",
            )?
            .query_row(params![folder, name], read_row)
            .optional()?)
    }

    /// The folder that has this inode, if it is known: a folder that was moved is recognized by it.
    pub(crate) fn folder_with(&self, stamp: &Stamp) -> Result<Option<i64>, StateError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT child, stamp FROM entry WHERE inode = ?1 AND child IS NOT NULL",
            )?
            .query_map([stamp.inode.cast_signed()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })?
            .filter_map(Result::ok)
            .find(|(_, kept)| Stamp::decode(kept).is_some_and(|kept| kept.device == stamp.device))
            .map(|(child, _)| child))
    }

    /// Records a name. What was below it, if it was another folder, is forgotten.
    pub(crate) fn put(&mut self, folder: i64, row: &Row) -> Result<(), StateError> {
        let before: Option<Option<i64>> = self
            .connection
            .prepare_cached("SELECT child FROM entry WHERE folder = ?1 AND name = ?2")?
            .query_row(params![folder, row.name], |row| row.get(0))
            .optional()?;
        if let Some(Some(child)) = before
            && row.child != Some(child)
        {
            self.remove_below(child)?;
        }
        let inode = row.child.map(|_| row.stamp.inode.cast_signed());
        self.connection
            .prepare_cached(concat!(
                "INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                or_replace!()
            ))?
            .execute(params![
                folder,
                row.name,
                row.child,
                row.complete,
                row.held,
                row.stamp.encode(),
                inode,
                row.entry
            ])?;
        Ok(())
    }

    /// Forgets a name, and everything below it.
    pub(crate) fn remove(&mut self, folder: i64, name: &[u8]) -> Result<(), StateError> {
        let row = self.row(folder, name)?;
        if let Some(child) = row.and_then(|row| row.child) {
            self.remove_below(child)?;
        }
        self.connection
            .prepare_cached("DELETE FROM entry WHERE folder = ?1 AND name = ?2")?
            .execute(params![folder, name])?;
        Ok(())
    }

    fn remove_below(&mut self, folder: i64) -> Result<(), StateError> {
        self.connection
            .prepare_cached(
                "WITH RECURSIVE below(folder) AS (VALUES (?1) UNION
                     SELECT child FROM entry, below WHERE entry.folder = below.folder AND child IS NOT NULL)
                 DELETE FROM entry WHERE folder IN (SELECT folder FROM below)",
            )?
            .execute([folder])?;
        Ok(())
    }

    /// Whether everything that the base has below a folder is held here.
    pub(crate) fn holds_all_below(&self, folder: i64) -> Result<bool, StateError> {
        Ok(self
            .connection
            .prepare_cached(
                "WITH RECURSIVE below(folder) AS (VALUES (?1) UNION
                     SELECT child FROM entry, below WHERE entry.folder = below.folder AND child IS NOT NULL)
                 SELECT NOT EXISTS (SELECT 1 FROM entry, below WHERE entry.folder = below.folder AND held = 0)",
            )?
            .query_row([folder], |row| row.get(0))?)
    }

    /// Moves a name, with everything below it, to another place.
    pub(crate) fn rename(
        &mut self,
        from: (i64, &[u8]),
        to: (i64, &[u8]),
    ) -> Result<(), StateError> {
        self.remove(to.0, to.1)?;
        self.connection
            .prepare_cached(
                "UPDATE entry SET folder = ?3, name = ?4 WHERE folder = ?1 AND name = ?2",
            )?
            .execute(params![from.0, from.1, to.0, to.1])?;
        Ok(())
    }

    /// Notes that what is below a folder does not correspond to its entry for now.
    pub(crate) fn set_incomplete(&mut self, folder: i64, name: &[u8]) -> Result<(), StateError> {
        self.connection
            .prepare_cached("UPDATE entry SET complete = 0 WHERE folder = ?1 AND name = ?2")?
            .execute(params![folder, name])?;
        Ok(())
    }

    /// Notes that all that is below a folder is as this entry of it says.
    pub(crate) fn set_complete(
        &mut self,
        folder: i64,
        name: &[u8],
        entry: &[u8],
    ) -> Result<(), StateError> {
        self.connection
            .prepare_cached("UPDATE entry SET complete = 1, entry = ?3 WHERE folder = ?1 AND name = ?2 AND held = 1")?
            .execute(params![folder, name, entry])?;
        Ok(())
    }

    /// The parts of the top folder, if all that is below it is as they say.
    pub(crate) fn top(&self) -> Result<Option<Vec<u8>>, StateError> {
        let (complete, parts): (bool, Vec<u8>) =
            self.connection
                .query_row("SELECT complete, parts FROM top", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
        Ok(complete.then_some(parts))
    }

    /// Notes that the base is, as a whole, the tree with these parts, of this head; `None`: that it is in the midst of
    /// a change.
    pub(crate) fn set_top(
        &mut self,
        top: Option<(&References, u64, ObjectId)>,
    ) -> Result<(), StateError> {
        let Some((parts, counter, manifest)) = top else {
            self.connection
                .prepare_cached("UPDATE top SET complete = 0")?
                .execute([])?;
            return Ok(());
        };
        let counter = counter.cast_signed();
        self.connection
            .prepare_cached("UPDATE top SET complete = 1, parts = ?1, counter = ?2")?
            .execute(params![encode_parts(parts), counter])?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO head VALUES (?1, ?2)")?
            .execute(params![manifest.as_bytes(), counter])?;
        self.connection
            .prepare_cached("DELETE FROM head WHERE counter < ?1")?
            .execute([counter.saturating_sub(HEADS_MAX)])?;
        Ok(())
    }

    /// Whether the base was the whole tree of this head once.
    pub(crate) fn knows_head(&self, manifest: &ObjectId) -> Result<bool, StateError> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM head WHERE manifest = ?1")?
            .exists([manifest.as_bytes()])?)
    }

    /// Forgets heads that the cell does not have any more.
    pub(crate) fn forget_heads_after(&mut self, counter: u64) -> Result<(), StateError> {
        self.connection.execute(
            "DELETE FROM head WHERE counter > ?1",
            [counter.cast_signed()],
        )?;
        Ok(())
    }

    /// Of which head the base is the whole tree: its counter. `None`: it is in the midst of a change.
    pub(crate) fn counter(&self) -> Result<Option<u64>, StateError> {
        let (complete, counter): (bool, i64) =
            self.connection
                .query_row("SELECT complete, counter FROM top", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
        Ok(complete.then_some(counter.cast_unsigned()))
    }

    /// Forgets all names.
    pub(crate) fn clear(&mut self) -> Result<(), StateError> {
        Ok(self.connection.execute_batch(
            "DELETE FROM entry; DELETE FROM pending; UPDATE top SET complete = 0;",
        )?)
    }

    /// The cell was put back to an earlier head, and the person accepted it. The next round makes the newest tree that
    /// both had the base, so that all that the folder has beyond it counts as changed here, and is brought back.
    pub fn put_back(&mut self) -> Result<(), StateError> {
        Ok(self
            .connection
            .execute_batch("UPDATE top SET put_back = 1")?)
    }

    /// Whether [`State::put_back`] was called and no round did it yet.
    pub(crate) fn is_put_back(&self) -> Result<bool, StateError> {
        Ok(self
            .connection
            .query_row("SELECT put_back FROM top", [], |row| row.get(0))?)
    }

    /// A round did it.
    pub(crate) fn put_back_done(&mut self) -> Result<(), StateError> {
        Ok(self
            .connection
            .execute_batch("UPDATE top SET put_back = 0")?)
    }

    /// Keeps a record until the head moved: a name's new entry, or that it is gone.
    pub(crate) fn put_pending(
        &mut self,
        folder: i64,
        name: &[u8],
        new: Option<(Option<i64>, &Stamp, &[u8])>,
    ) -> Result<(), StateError> {
        let (child, stamp, inode, entry) = match new {
            Some((child, stamp, entry)) => (
                child,
                Some(stamp.encode()),
                child.map(|_| stamp.inode.cast_signed()),
                Some(entry),
            ),
            None => (None, None, None, None),
        };
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO pending VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![folder, name, child, stamp, inode, entry])?;
        Ok(())
    }

    /// Forgets what was kept.
    pub(crate) fn drop_pending(&mut self) -> Result<(), StateError> {
        self.connection.execute_batch("DELETE FROM pending")?;
        Ok(())
    }

    /// The head moved: what was kept is the base now.
    pub(crate) fn take_pending(&mut self) -> Result<(), StateError> {
        // A name that is gone, or that is not the folder any more that it was, takes all below it along.
        let gone: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT entry.child FROM pending JOIN entry USING (folder, name)
                 WHERE entry.child IS NOT NULL AND pending.child IS NOT entry.child",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for folder in gone {
            self.remove_below(folder)?;
        }
        self.connection.execute_batch(concat!(
            "DELETE FROM entry WHERE EXISTS (SELECT 1 FROM pending WHERE pending.folder = entry.folder
                 AND pending.name = entry.name AND pending.entry IS NULL);
             INSERT INTO entry SELECT folder, name, child, 0, 1, stamp, inode, entry FROM pending
                 WHERE entry IS NOT NULL",
            or_replace!(),
            "; DELETE FROM pending;"
        ))?;
        Ok(())
    }

    /// How many files and folders the base holds.
    pub fn counts(&self) -> Result<(u64, u64), StateError> {
        let (files, folders): (i64, i64) =
            self.connection
                .query_row("SELECT files, folders FROM sum", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
        Ok((files.unsigned_abs(), folders.unsigned_abs()))
    }

    /// Paths of the copies that were kept because two devices changed the same file, ascending.
    pub fn conflicts(&self) -> Result<Vec<Vec<u8>>, StateError> {
        let mut statement = self.connection.prepare_cached(concat!(
            "SELECT folder, name FROM entry INDEXED BY copies WHERE ",
            copies!()
        ))?;
        let found: Vec<(i64, Vec<u8>)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut paths = Vec::with_capacity(found.len());
        for (folder, name) in found {
            if !is_conflict_name(&name) {
                continue;
            }
            let mut parts = vec![name];
            let mut at = folder;
            while at != TOP {
                let above: Option<(i64, Vec<u8>)> = self
                    .connection
                    .prepare_cached("SELECT folder, name FROM entry WHERE child = ?1")?
                    .query_row([at], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                let Some((folder, name)) = above else { break };
                parts.push(name);
                at = folder;
            }
            parts.reverse();
            paths.push(parts.join(&b'/'));
        }
        paths.sort();
        Ok(paths)
    }
}

fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// References as they are kept, to compare them.
pub(crate) fn encode_parts(parts: &References) -> Vec<u8> {
    let mut out = vec![parts.levels];
    for reference in &parts.list {
        out.extend_from_slice(reference.id.as_bytes());
        out.extend_from_slice(&reference.length.to_be_bytes());
    }
    out
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let stamp: Vec<u8> = row.get(4)?;
    Ok(Row {
        name: row.get(0)?,
        child: row.get(1)?,
        complete: row.get(2)?,
        held: row.get(3)?,
        stamp: Stamp::decode(&stamp).ok_or(rusqlite::Error::InvalidQuery)?,
        entry: row.get(5)?,
    })
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(error, rusqlite::Error::InvalidQuery)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sync::names::CONFLICT_MARK;

    fn row(name: &str, child: Option<i64>, held: bool) -> Row {
        Row {
            name: name.as_bytes().to_vec(),
            child,
            complete: false,
            held,
            stamp: Stamp::nothing(),
            entry: Vec::new(),
        }
    }

    /// The sums as the rows themselves have them.
    fn counted(state: &State) -> (u64, u64) {
        let count = |what: &str| -> i64 {
            let question = format!("SELECT count(*) FROM entry WHERE held = 1 AND child IS {what}");
            let one = state.connection.query_row(&question, [], |row| row.get(0));
            one.unwrap()
        };
        (
            count("NULL").unsigned_abs(),
            count("NOT NULL").unsigned_abs(),
        )
    }

    #[test]
    fn the_sums_follow_every_change() {
        let mut state = State::in_memory().unwrap();
        let mut next = 7_u64;
        let mut draw = |below: u64| {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (next >> 33) % below
        };
        let names = ["a", "b", "c", "d"];
        for step in 0..2_000 {
            let folder = draw(4).cast_signed() + TOP;
            let name = names[usize::try_from(draw(4)).unwrap()];
            // Some of them are above or below each other, so that more than one row goes with one.
            let child = (draw(2) == 0).then(|| 2 + draw(4).cast_signed());
            let stamp = Stamp::nothing();
            match draw(7) {
                0 => state.remove(folder, name.as_bytes()).unwrap(),
                1 => {
                    let to = (draw(4).cast_signed() + TOP, b"moved".as_slice());
                    state.rename((folder, name.as_bytes()), to).unwrap();
                }
                2 => {
                    let new = (draw(3) > 0).then_some((child, &stamp, b"e".as_slice()));
                    state.put_pending(folder, name.as_bytes(), new).unwrap();
                }
                3 => state.take_pending().unwrap(),
                4 if step % 100 == 0 => state.clear().unwrap(),
                _ => state.put(folder, &row(name, child, draw(3) > 0)).unwrap(),
            }
            assert_eq!(state.counts().unwrap(), counted(&state), "step {step}");
        }
        assert_ne!(state.counts().unwrap(), (0, 0));
    }

    #[test]
    fn copies_are_found_wherever_they_lie_and_nothing_else_is() {
        let mut state = State::in_memory().unwrap();
        let copy = format!("list{CONFLICT_MARK}phone 2026-11-01 120000).txt");
        state.put(TOP, &row("notes", Some(2), true)).unwrap();
        for (folder, name, held) in [
            (TOP, copy.as_str(), true),
            (2, copy.as_str(), true),
            (2, "list (conflict of interest).txt", true),
            (2, "other (conflict x 2026-11-01 120000).txt", false),
        ] {
            state.put(folder, &row(name, None, held)).unwrap();
        }
        let expected = [copy.clone(), format!("notes/{copy}")].map(String::into_bytes);
        assert_eq!(state.conflicts().unwrap(), expected);
    }

    #[test]
    fn a_record_without_sums_gets_them_and_keeps_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(TABLES).unwrap();
        let put = "INSERT INTO entry VALUES (1, ?1, ?2, 0, 1, ?3, NULL, x'')";
        let stamp = Stamp::nothing().encode();
        connection
            .execute(put, params![b"a", None::<i64>, stamp])
            .unwrap();
        connection.execute(put, params![b"b", 2, stamp]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        drop(connection);
        let mut state = State::open(&path).unwrap();
        assert_eq!(state.counts().unwrap(), (1, 1));
        assert_eq!(version_of(&state.connection).unwrap(), STATE_VERSION);
        state.put(TOP, &row("c", None, true)).unwrap();
        state.put(TOP, &row("a", Some(3), true)).unwrap();
        state.remove(TOP, b"b").unwrap();
        drop(state);
        assert_eq!(State::open(&path).unwrap().counts().unwrap(), (1, 1));
        // An earlier program began it anew and knew nothing of sums.
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(TABLES).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        drop(connection);
        assert_eq!(State::open(&path).unwrap().counts().unwrap(), (0, 0));
    }
}
