//! Versions of what programs declare under one name. Invariant: a digest keeps the number that it was given when it was declared for the
//! first time, as long as it is one of the last [`KEPT_MAX`] of its name.

use cloaca_core::key::Epoch;

use super::super::db::{self, Db, OptionalExtension as _, named_params};
use super::super::fault::Failure;

/// So many versions of one name are remembered: a program that declares another one at each start must not fill the file.
const KEPT_MAX: i64 = 16;

/// What stands in the row of a trigger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version {
    /// None of a row that was declared before there were versions.
    pub digest: Option<i64>,
    pub number: i64,
}

/// Versions within one transaction. What is empty, as it is unless programs differ, is looked at once.
pub struct Versions<'c> {
    db: &'c Db,
    has_others: bool,
    has_declared: bool,
}

impl<'c> Versions<'c> {
    /// As they are now.
    pub fn new(db: &'c Db) -> Result<Self, Failure> {
        let is_there = |sql| -> Result<bool, Failure> { Ok(db.prepare_cached(sql)?.exists([])?) };
        let has_others = is_there("SELECT 1 FROM versions LIMIT 1")?;
        Ok(Self { db, has_others, has_declared: is_there("SELECT 1 FROM declared LIMIT 1")? })
    }

    /// The number of a digest, the next one if it is declared for the first time. `row` is what the trigger's row holds, if there is one.
    pub fn number(&self, name: &str, digest: i64, row: Version) -> Result<i64, Failure> {
        const KNOWN: &str = "SELECT version FROM versions WHERE name = :name AND digest = :digest";
        const LAST: &str = "SELECT coalesce(max(version), 0) FROM versions WHERE name = :name";
        if row.digest == Some(digest) {
            return Ok(row.number);
        }
        if !self.has_others {
            return Ok(row.number + 1);
        }
        let params = named_params! { ":name": name, ":digest": digest };
        let known = self.db.prepare_cached(KNOWN)?.query_row(params, |row| row.get(0)).optional()?;
        if let Some(number) = known {
            return Ok(number);
        }
        let last: i64 =
            self.db.prepare_cached(LAST)?.query_row(named_params! { ":name": name }, |row| row.get(0))?;
        Ok(last.max(row.number) + 1)
    }

    /// Remembers a version that is to be in no row any more, or is in none.
    pub fn keep(&mut self, name: &str, version: Version) -> Result<(), Failure> {
        const KEEP: &str = "INSERT INTO versions (name, digest, version) VALUES (:name, :digest, :version) ON CONFLICT DO NOTHING";
        const FORGET: &str = "DELETE FROM versions WHERE name = :name AND version <= :version";
        let Version { digest: Some(digest), number } = version else { return Ok(()) };
        self.has_others = true;
        let params = named_params! { ":name": name, ":digest": digest, ":version": number };
        if self.db.prepare_cached(KEEP)?.execute(params)? == 1 && number > KEPT_MAX {
            let params = named_params! { ":name": name, ":version": number - KEPT_MAX };
            self.db.prepare_cached(FORGET)?.execute(params)?;
        }
        Ok(())
    }

    /// Notes that `epoch`, which doesn't poll it, declares that version.
    pub fn declare(&mut self, name: &str, epoch: Epoch, number: i64) -> Result<(), Failure> {
        const SQL: &str = "
            INSERT INTO declared (name, owner, version) VALUES (:name, :epoch, :version)
            ON CONFLICT (name, owner) DO UPDATE SET version = excluded.version WHERE declared.version <> excluded.version";
        self.has_declared = true;
        let params = named_params! { ":name": name, ":epoch": epoch.0, ":version": number };
        self.db.prepare_cached(SQL)?.execute(params)?;
        Ok(())
    }

    /// The version that `epoch`, which doesn't poll it, declares.
    pub fn of(&self, name: &str, epoch: Epoch) -> Result<Option<i64>, Failure> {
        const SQL: &str = "SELECT version FROM declared WHERE name = :name AND owner = :epoch";
        if !self.has_declared {
            return Ok(None);
        }
        let params = named_params! { ":name": name, ":epoch": epoch.0 };
        Ok(self.db.prepare_cached(SQL)?.query_row(params, |row| row.get(0)).optional()?)
    }

    /// Notes that `epoch` declares nothing under that name, unless it is another version than `number`.
    pub fn withdraw(&self, name: &str, epoch: Epoch, number: Option<i64>) -> Result<(), Failure> {
        const SQL: &str = "
            DELETE FROM declared WHERE name = :name AND owner = :epoch AND version = coalesce(:version, version)";
        if self.has_declared {
            let params = named_params! { ":name": name, ":epoch": epoch.0, ":version": number };
            self.db.prepare_cached(SQL)?.execute(params)?;
        }
        Ok(())
    }

    /// Nobody wants the trigger any more: its next owner has it.
    pub fn unwant(&self, name: &str) -> Result<(), Failure> {
        const SQL: &str = "UPDATE declared SET wanted = FALSE WHERE name = :name AND wanted";
        if self.has_declared {
            self.db.prepare_cached(SQL)?.execute(named_params! { ":name": name })?;
        }
        Ok(())
    }

    /// The living owners other than `epoch` that declare it, but for whoever polls the trigger, with their versions. What the dead have left
    /// goes.
    pub fn of_others(
        &self,
        name: &str,
        epoch: Epoch,
        mut is_living: impl FnMut(Epoch) -> Result<bool, Failure>,
    ) -> Result<Vec<(Epoch, i64)>, Failure> {
        const SQL: &str = "SELECT owner, version FROM declared WHERE name = :name AND owner <> :epoch";
        if !self.has_declared {
            return Ok(Vec::new());
        }
        let mut statement = self.db.prepare_cached(SQL)?;
        let params = named_params! { ":name": name, ":epoch": epoch.0 };
        let found = statement.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(i64, i64)> = found.collect::<db::Result<_>>()?;
        let mut living = Vec::with_capacity(found.len());
        for (owner, number) in found {
            let owner = Epoch(owner);
            match is_living(owner)? {
                true => living.push((owner, number)),
                false => self.withdraw(name, owner, None)?,
            }
        }
        Ok(living)
    }
}

/// Who declares a cron, or a trigger that another one polls; the dead may be among them.
pub fn declarers(db: &Db, name: &str) -> Result<Vec<Epoch>, Failure> {
    let mut statement = db.prepare_cached("SELECT owner FROM declared WHERE name = :name")?;
    let found = statement.query_map(named_params! { ":name": name }, |row| row.get(0).map(Epoch))?;
    Ok(found.collect::<db::Result<_>>()?)
}

/// What is remembered of a name goes, with who declares it.
pub fn forget(db: &Db, name: &str) -> Result<(), Failure> {
    for sql in ["DELETE FROM versions WHERE name = :name", "DELETE FROM declared WHERE name = :name"] {
        db.prepare_cached(sql)?.execute(named_params! { ":name": name })?;
    }
    Ok(())
}

/// What is remembered of a name, which nobody living declares, is of another one.
pub fn rename(db: &Db, from: &str, to: &str) -> Result<(), Failure> {
    const SQL: &str = "UPDATE versions SET name = :to WHERE name = :from";
    forget(db, to)?;
    db.prepare_cached(SQL)?.execute(named_params! { ":from": from, ":to": to })?;
    forget(db, from)
}
