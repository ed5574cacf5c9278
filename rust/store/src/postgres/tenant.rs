//! Tenants: a schema, and a role that owns it and sees no other. Invariant: only what was made here is changed or removed, a tenant is there whole or not at
//! all, and no password stands in a statement.
//!
//! That a role is a tenant's stands in its comment, which nobody sets who may not make roles.

use std::thread::sleep;
use std::time::{Duration, Instant};

use cloaca_core::port::Fault;
use postgres_protocol::password::scram_sha_256;
use ring::rand::{SystemRandom, generate};
use tokio_postgres::error::SqlState;

use crate::postgres::address::{Address, NAME_BYTES_MAX, SCHEMA};
use crate::postgres::db::{Db, Error, OptionalExtension as _, named_params};
use crate::postgres::fault::Failure;
use crate::postgres::open::{self, Use, quoted};
use crate::postgres::schema;

/// Another program may make the same role in another database, or hold what is to be removed.
const TRIES: u32 = 3;
/// Sessions that were told to end are waited for so long.
const END_PATIENCE: Duration = Duration::from_secs(10);
const END_PAUSE: Duration = Duration::from_millis(20);
const PASSWORD_BYTES_MAX: usize = 1024;
/// What a password is made of that nobody has given.
const SECRET_BYTES: usize = 24;

/// Which schema a tenant has, and which role.
#[derive(Debug, Clone, Copy)]
pub struct Tenant<'t> {
    /// The schema's name.
    pub schema: &'t str,
    /// The role's name.
    pub user: &'t str,
}

impl Tenant<'_> {
    /// Refuses names that the server refuses, or keeps otherwise, or that are of others.
    ///
    /// # Errors
    /// The message for the user.
    pub fn check(&self) -> Result<(), String> {
        let own = ["public", "information_schema", "$user"];
        checked("schema_name", self.schema, &own)?;
        if self.schema.eq_ignore_ascii_case(SCHEMA) {
            return Err(format!(
                "schema_name is '{}', where everything is that names no schema; choose another",
                self.schema
            ));
        }
        checked("username", self.user, &["public", "none"])
    }

    /// The comment that says whose its role is.
    fn mark(&self, database: &str) -> String {
        format!("cloaca: tenant with schema {} in database {}", quoted(self.schema), quoted(database))
    }
}

fn checked(what: &str, name: &str, own: &[&str]) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if name.trim().is_empty() {
        Err(format!("{what} is '{name}'; it must not be empty"))
    } else if name.contains('\0') {
        Err(format!("{what} contains a NUL character; remove it"))
    } else if name.len() > NAME_BYTES_MAX {
        Err(format!("{what} has {} bytes; PostgreSQL keeps at most {NAME_BYTES_MAX}", name.len()))
    } else if lower.starts_with("pg_") || own.contains(&lower.as_str()) {
        Err(format!("{what} is '{name}', which belongs to PostgreSQL itself; choose another"))
    } else {
        Ok(())
    }
}

/// The password that was given, or a new one if none was.
///
/// # Errors
/// The message for the user.
pub fn password(given: Option<&str>) -> Result<String, String> {
    match given {
        Some(given) if given.contains('\0') => Err("password contains a NUL character; remove it".to_owned()),
        Some(given) if given.len() > PASSWORD_BYTES_MAX => {
            Err(format!("password has {} bytes; at most {PASSWORD_BYTES_MAX} are taken", given.len()))
        }
        Some(given) if !given.is_empty() => Ok(given.to_owned()),
        _ => {
            let secret: [u8; SECRET_BYTES] = generate(&SystemRandom::new())
                .map_err(|_| "this system gives no random numbers for a password; give one".to_owned())?
                .expose();
            Ok(secret.iter().map(|byte| format!("{byte:02x}")).collect())
        }
    }
}

/// Makes a tenant, or renews one that is there: its password, its rights, and its tables if they are older than this program.
///
/// # Errors
/// The message for the user.
pub fn create(address: &Address, tenant: Tenant<'_>, password: &str) -> Result<(), String> {
    let verifier = scram_sha_256(password.as_bytes());
    with(address, tenant, |db| {
        let us = us(db)?;
        us.check_may_make(&address.name)?;
        let is_known = is_ours(db, tenant, &us.database)?;
        let has_schema = check_schema(db, tenant)?;
        let user = quoted(tenant.user);
        // Whoever is no superuser may not even say of a role that is there that it is none; that one of ours is, is refused above.
        let (verb, rest) = match is_known {
            true => ("ALTER", ""),
            false => ("CREATE", "NOSUPERUSER NOREPLICATION NOBYPASSRLS"),
        };
        db.execute_batch(&format!(
            "{verb} ROLE {user} LOGIN NOCREATEDB NOCREATEROLE NOINHERIT {rest} PASSWORD {}; COMMENT ON ROLE {user} IS {}",
            literal(&verifier),
            literal(&tenant.mark(&us.database))
        ))?;
        us.join(db, tenant)?;
        let (schema, database) = (quoted(tenant.schema), quoted(&us.database));
        if !has_schema {
            db.execute_batch(&format!("CREATE SCHEMA {schema} AUTHORIZATION {user}"))?;
        }
        db.execute_batch(&format!(
            "REVOKE ALL ON SCHEMA {schema} FROM PUBLIC; ALTER ROLE {user} IN DATABASE {database} SET search_path TO {schema}; \
             GRANT CONNECT ON DATABASE {database} TO {user}"
        ))?;
        check_may_connect(db, tenant, &address.name)?;
        schema::bring_up(db, &address.name, tenant.schema)
    })
}

/// Removes a tenant with all that it has, after ending its sessions. One that is not there is no error.
///
/// # Errors
/// The message for the user.
pub fn remove(address: &Address, tenant: Tenant<'_>) -> Result<(), String> {
    // First nobody new gets in, or those who are sent away come back.
    let is_there = with(address, tenant, |db| {
        let us = us(db)?;
        let is_there = is_ours(db, tenant, &us.database)?;
        check_schema(db, tenant)?;
        if is_there {
            us.check_may_change_roles(&address.name)?;
            db.execute_batch(&format!("ALTER ROLE {} NOLOGIN", quoted(tenant.user)))?;
            us.join(db, tenant)?;
        }
        Ok(is_there)
    })?;
    if !is_there {
        return Ok(());
    }
    end_sessions(address, tenant)?;
    with(address, tenant, |db| {
        // Somebody else may have removed it meanwhile.
        if is_ours(db, tenant, &us(db)?.database)? && check_schema(db, tenant)? {
            schema::lock(db, tenant.schema)?;
            db.execute_batch(&format!("DROP SCHEMA {} CASCADE", quoted(tenant.schema)))?;
        }
        if is_ours(db, tenant, &us(db)?.database)? {
            let user = quoted(tenant.user);
            db.execute_batch(&format!("DROP OWNED BY {user} CASCADE; DROP ROLE {user}"))?;
        }
        Ok(())
    })
}

/// Runs `work` in one transaction, under the lock of all tenants of a database.
fn with<T>(
    address: &Address,
    tenant: Tenant<'_>,
    work: impl Fn(&Db) -> Result<T, Failure>,
) -> Result<T, String> {
    let address = Address { schema: tenant.schema.to_owned(), ..address.clone() };
    let begin = format!(
        "BEGIN; SELECT pg_advisory_xact_lock({}, {})",
        schema::LOCK_CLASS,
        schema::key_of("every tenant")
    );
    let attempt = || -> Result<T, Failure> {
        let db = open::connection(&address, Use::Writing)?;
        open::refuse_pooler(&address, &db, &open::connection(&address, Use::Reading)?)?;
        db.execute_batch(&begin)?;
        // If it fails, the server rolls back once the connection is gone.
        let done = work(&db)?;
        db.execute_batch("COMMIT")?;
        Ok(done)
    };
    for _ in 1..TRIES {
        match attempt() {
            Err(Failure::Sql(Error::Server(error))) if is_conflict(error.code()) => {}
            done => return done.map_err(|failure| told(failure, &address.name)),
        }
    }
    attempt().map_err(|failure| told(failure, &address.name))
}

fn told(failure: Failure, name: &str) -> String {
    let (Fault::Passing(text) | Fault::Final(text)) = failure.into_fault(name);
    text
}

/// Whether the same may go well after what another one did.
fn is_conflict(code: Option<&SqlState>) -> bool {
    let states = [
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNIQUE_VIOLATION,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNDEFINED_OBJECT,
    ];
    code.is_some_and(|code| states.contains(code))
}

/// Who makes tenants.
struct Us {
    user: String,
    database: String,
    is_super: bool,
    makes_roles: bool,
    makes_schemas: bool,
}

fn us(db: &Db) -> Result<Us, Failure> {
    const SQL: &str = "
        SELECT rolname, current_database(), rolsuper, rolsuper OR rolcreaterole, has_database_privilege(current_database(), 'CREATE')
        FROM pg_catalog.pg_roles WHERE rolname = current_user";
    Ok(db.prepare_cached(SQL)?.query_row([], |row| {
        Ok(Us {
            user: row.get(0)?,
            database: row.get(1)?,
            is_super: row.get(2)?,
            makes_roles: row.get(3)?,
            makes_schemas: row.get(4)?,
        })
    })?)
}

impl Us {
    fn check_may_change_roles(&self, name: &str) -> Result<(), Failure> {
        match self.makes_roles {
            true => Ok(()),
            false => Err(Failure::Refused(format!(
                "database '{name}': user '{}' may not make or change roles, which tenants are: ALTER ROLE {} CREATEROLE, or give \
                 DatabaseAdmin the URL of one who may",
                self.user,
                quoted(&self.user)
            ))),
        }
    }

    fn check_may_make(&self, name: &str) -> Result<(), Failure> {
        self.check_may_change_roles(name)?;
        match self.makes_schemas {
            true => Ok(()),
            false => Err(Failure::Refused(format!(
                "database '{name}': user '{}' may not make schemas there: GRANT CREATE ON DATABASE {} TO {}, or give DatabaseAdmin \
                 the URL of one who may",
                self.user,
                quoted(&self.database),
                quoted(&self.user)
            ))),
        }
    }

    /// What belongs to a role only its members change, and superusers.
    fn join(&self, db: &Db, tenant: Tenant<'_>) -> Result<(), Failure> {
        const SQL: &str = "
            SELECT 1 WHERE pg_has_role(:user::NAME, 'USAGE')
              AND pg_has_role(:user::NAME, CASE WHEN current_setting('server_version_num')::INT < 160000 THEN 'MEMBER' ELSE 'SET' END)";
        if !self.is_super && !db.prepare_cached(SQL)?.exists(named_params! { ":user": tenant.user })? {
            db.execute_batch(&format!("GRANT {} TO {}", quoted(tenant.user), quoted(&self.user)))?;
        }
        Ok(())
    }
}

/// Whether a tenant's role is there. One of the same name that is none of ours, or of another tenant, is refused.
fn is_ours(db: &Db, tenant: Tenant<'_>, database: &str) -> Result<bool, Failure> {
    const SQL: &str = "
        SELECT rolsuper OR rolreplication OR rolbypassrls, shobj_description(oid, 'pg_authid')
        FROM pg_catalog.pg_roles WHERE rolname = :user";
    let found: Option<(bool, Option<String>)> = db
        .prepare_cached(SQL)?
        .query_row(named_params! { ":user": tenant.user }, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((is_more, comment)) = found else { return Ok(false) };
    let comment = comment.unwrap_or_default();
    if comment != tenant.mark(database) {
        let whose = match comment.strip_prefix("cloaca: ") {
            Some(whose) => format!("it is the role of the {whose}"),
            None => "it was not made by create_tenant".to_owned(),
        };
        return Err(Failure::Refused(format!(
            "role '{}' is there and is left alone: {whose}; choose another username, or name the schema and the database that it belongs to",
            tenant.user
        )));
    }
    if is_more {
        return Err(Failure::Refused(format!(
            "role '{}' may see what is not its own (SUPERUSER, REPLICATION or BYPASSRLS), and a tenant must not: take that from it",
            tenant.user
        )));
    }
    Ok(true)
}

/// Whether the schema is there. One that belongs to another role is refused.
fn check_schema(db: &Db, tenant: Tenant<'_>) -> Result<bool, Failure> {
    const SQL: &str = "
        SELECT rolname FROM pg_catalog.pg_namespace JOIN pg_catalog.pg_roles ON pg_roles.oid = nspowner WHERE nspname = :schema";
    let owner: Option<String> = db
        .prepare_cached(SQL)?
        .query_row(named_params! { ":schema": tenant.schema }, |row| row.get(0))
        .optional()?;
    match owner {
        Some(owner) if owner != tenant.user => Err(Failure::Refused(format!(
            "schema '{}' is there and is left alone: it belongs to role '{owner}' and not to '{}'; choose another schema_name",
            tenant.schema, tenant.user
        ))),
        owner => Ok(owner.is_some()),
    }
}

fn check_may_connect(db: &Db, tenant: Tenant<'_>, name: &str) -> Result<(), Failure> {
    const SQL: &str = "SELECT 1 WHERE has_database_privilege(:user::NAME, current_database(), 'CONNECT')";
    match db.prepare_cached(SQL)?.exists(named_params! { ":user": tenant.user })? {
        true => Ok(()),
        false => Err(Failure::Refused(format!(
            "database '{name}': nobody may connect by default, and this user may not let '{}': only the database's owner and \
             superusers grant CONNECT",
            tenant.user
        ))),
    }
}

/// Ends a tenant's sessions, and waits until they have ended.
fn end_sessions(address: &Address, tenant: Tenant<'_>) -> Result<(), String> {
    const SQL: &str = "
        SELECT count(*), count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE usename = :user";
    let told = |failure| told(failure, &address.name);
    let db = open::connection(address, Use::Asking).map_err(told)?;
    let deadline = Instant::now() + END_PATIENCE;
    loop {
        let left: i64 = db
            .prepare_cached(SQL)
            .and_then(|mut sql| sql.query_row(named_params! { ":user": tenant.user }, |row| row.get(0)))
            .map_err(|error| told(error.into()))?;
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "database '{}': {left} sessions of '{}' have not ended within {} s; nobody can log in as it any more: remove it again",
                address.name,
                tenant.user,
                END_PATIENCE.as_secs()
            ));
        }
        sleep(END_PAUSE);
    }
}

/// A text as SQL has it, where strings conform to the standard, as they do on each connection of ours.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_of_others_or_of_nobody_are_refused() {
        for name in ["", " ", "a\0b", "pg_x", "PG_temp", "public", "PUBLIC", &"x".repeat(64), &"é".repeat(32)]
        {
            assert!(Tenant { schema: name, user: "acme" }.check().is_err(), "{name}");
            assert!(Tenant { schema: "acme", user: name }.check().is_err(), "{name}");
        }
        for schema in ["cloaca", "information_schema", "$user"] {
            assert!(Tenant { schema, user: "acme" }.check().is_err(), "{schema}");
        }
        for name in ["a\"b", "a b", "ACME", "ä;--", &"x".repeat(63)] {
            assert_eq!(Tenant { schema: name, user: name }.check(), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_password_is_made_where_none_is_given() {
        let (one, other) = (password(None).unwrap(), password(Some("")).unwrap());
        assert!(one != other && one.len() == 2 * SECRET_BYTES);
        assert_eq!(password(Some("p'w")).unwrap(), "p'w");
        assert!(password(Some("a\0b")).is_err() && password(Some(&"x".repeat(2_000))).is_err());
    }
}
