//! How triggers change hands between runners that declare them in one version. Who is to have one is decided elsewhere.
//! Invariant: a trigger that nobody polls is waited with for whose it is by right, and for a bounded time only.

use std::sync::Arc;

use cloaca_core::key::{Epoch, ScheduleKey};
use cloaca_core::port::Wished;
use cloaca_core::spread::{Contested, owner_of};
use rusqlite::{Connection, named_params};

use crate::sqlite::fault::Failure;
use crate::sqlite::value::signed;

/// So long a trigger that nobody polls is left to whose it is by right: that runner may be stopped.
const LEFT_US: i64 = 5_000_000;

/// Whether a trigger that nobody polls is left to one of the others that declare it, all of them living. Of one that has not taken it for too long no
/// other wish counts, either, until it says so anew.
pub fn is_left(
    db: &Connection,
    row: ScheduleKey,
    trigger: &str,
    epoch: Epoch,
    number: i64,
    others: &[(Epoch, i64)],
) -> Result<bool, Failure> {
    // By SQLite's clock, as both were noted. A time ahead says nothing.
    const FRESH: &str = "
        SELECT coalesce(free_since, (SELECT left_at FROM owners WHERE epoch = schedules.owner), 0)
            BETWEEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) - :left_us AND CAST(unixepoch('subsec') * 1000000 AS INTEGER)
        FROM schedules WHERE row = :row";
    let same = others.iter().filter(|&&(_, other)| other == number).map(|&(other, _)| other);
    if others.is_empty() || owner_of(trigger, same.chain([epoch])) == Some(epoch) {
        return Ok(false);
    }
    // Index declared_wanted.
    const FORGET: &str = "
        UPDATE declared SET wanted = 0 WHERE wanted = 1 AND owner IN (
            SELECT stopped.owner FROM declared AS stopped WHERE stopped.name = :name AND stopped.wanted = 1)";
    let params = named_params! { ":row": row.0, ":left_us": LEFT_US };
    let is_fresh: bool = db.prepare_cached(FRESH)?.query_row(params, |row| row.get(0))?;
    if !is_fresh {
        db.prepare_cached(FORGET)?.execute(named_params! { ":name": trigger })?;
    }
    Ok(is_fresh)
}

/// At most `limit` triggers that `epoch` declares and another living owner polls in the same version, by their names, after that one.
pub fn contested(db: &Connection, epoch: Epoch, after: &str, limit: u64) -> Result<Vec<Contested>, Failure> {
    // Primary key of declared; index schedules_trigger.
    const SQL: &str = "
        SELECT mine.name, mine.wanted, polled.owner, (
            SELECT group_concat(other.owner) FROM declared AS other JOIN owners ON epoch = other.owner AND left_at IS NULL
            WHERE other.name = mine.name AND other.version = mine.version AND other.owner <> polled.owner)
        FROM declared AS mine
        CROSS JOIN schedules AS polled ON polled.kind = 'trigger' AND polled.name = mine.name AND polled.version = mine.version
        JOIN owners AS living ON living.epoch = polled.owner AND living.left_at IS NULL
        WHERE mine.name > :after AND mine.owner = :epoch AND polled.owner <> :epoch
        ORDER BY mine.name LIMIT :limit";
    let params = named_params! { ":epoch": epoch.0, ":after": after, ":limit": signed(limit) };
    let mut statement = db.prepare_cached(SQL)?;
    let rows = statement.query_map(params, |row| {
        let polled_by = Epoch(row.get(2)?);
        let others: Option<String> = row.get(3)?;
        let others =
            others.iter().flat_map(|others| others.split(',')).filter_map(|other| other.parse().ok());
        Ok(Contested {
            trigger: row.get::<_, String>(0)?.into(),
            declared_by: std::iter::once(polled_by).chain(others.map(Epoch)).collect(),
            is_wanted: row.get(1)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Notes which triggers `epoch` wants, and which no more.
pub fn want(db: &Connection, epoch: Epoch, wishes: &[(Arc<str>, bool)]) -> Result<(), Failure> {
    const SQL: &str = "UPDATE declared SET wanted = :wanted WHERE name = :name AND owner = :epoch";
    let mut statement = db.prepare_cached(SQL)?;
    for (name, wanted) in wishes {
        statement.execute(named_params! { ":name": name, ":epoch": epoch.0, ":wanted": wanted })?;
    }
    Ok(())
}

/// What `epoch` has and others want, and what it wants and nobody has.
pub fn wished(db: &Connection, epoch: Epoch) -> Result<Wished, Failure> {
    // Index declared_wanted, which holds nothing while every trigger is where it is to be; index schedules_trigger.
    const SQL: &str = "
        SELECT wanted.name, wanted.owner = :epoch, polled.owner IS NULL
        FROM declared AS wanted INDEXED BY declared_wanted
        CROSS JOIN schedules AS polled ON polled.kind = 'trigger' AND polled.name = wanted.name
        WHERE wanted.wanted = 1 AND wanted.owner IN (SELECT epoch FROM owners WHERE left_at IS NULL) AND iif(wanted.owner = :epoch,
            polled.owner IS NULL OR polled.owner NOT IN (SELECT epoch FROM owners WHERE left_at IS NULL),
            polled.owner IS NULL OR polled.owner = :epoch AND polled.version = wanted.version)";
    let mut wished = Wished::default();
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query(named_params! { ":epoch": epoch.0 })?;
    while let Some(row) = rows.next()? {
        let name = || row.get::<_, String>(0).map(Arc::from);
        match (row.get(1)?, row.get(2)?) {
            (true, _) => wished.granted.push(name()?),
            (false, true) => wished.untaken += 1,
            (false, false) => wished.of_us.push(name()?),
        }
    }
    Ok(wished)
}

/// Crons that are switched on and that several living owners may run, with who those are.
pub fn crons_of_many(db: &Connection) -> Result<Vec<(ScheduleKey, Vec<Epoch>)>, Failure> {
    // Indices schedules_crons, owners_living; primary keys of declared and workflows.
    const SQL: &str = "
        SELECT cron.row, living.epoch FROM schedules AS cron INDEXED BY schedules_crons
        CROSS JOIN owners AS living ON living.left_at IS NULL AND living.works AND living.crons AND NOT living.draining
        WHERE cron.kind = 'cron' AND cron.enabled AND iif(cron.declared_as IS NOT NULL AND NOT cron.registered,
            EXISTS (SELECT 1 FROM declared WHERE name = cron.name AND owner = living.epoch AND version = cron.version),
            EXISTS (SELECT 1 FROM workflows WHERE name = cron.workflow AND owner = living.epoch))
        ORDER BY cron.row";
    let mut crons: Vec<(ScheduleKey, Vec<Epoch>)> = Vec::new();
    let mut statement = db.prepare_cached(SQL)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (cron, epoch) = (ScheduleKey(row.get(0)?), Epoch(row.get(1)?));
        match crons.last_mut().filter(|(last, _)| *last == cron) {
            Some((_, living)) => living.push(epoch),
            None => crons.push((cron, vec![epoch])),
        }
    }
    crons.retain(|(_, living)| living.len() > 1);
    Ok(crons)
}
