//! Tenants, by URLs. Invariant: nothing is asked of a server before all arguments are known to be good.

use crate::OpenError;
use crate::postgres::{self, Address, Tenant};
use crate::url::{self, Target};

/// How a tenant connects.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its password.
    pub password: String,
    /// The URL of its store, which holds it.
    pub url: String,
}

/// Makes a tenant on the server that `url` names, or renews one that is there; without a password it gets a new one.
///
/// # Errors
/// [`OpenError::Url`] for a malformed URL, name or password, [`OpenError::Store`] for what the server refuses, and for a store that is on none.
pub fn create_tenant(
    url: &str,
    schema: &str,
    user: &str,
    password: Option<&str>,
) -> Result<Credentials, OpenError> {
    let (address, tenant) = checked(url, schema, user)?;
    let password = postgres::password_of(password).map_err(OpenError::Url)?;
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let url = address.url_for(rest, user, &password, schema).map_err(OpenError::Url)?;
    postgres::create_tenant(&address, tenant, &password).map_err(OpenError::Store)?;
    Ok(Credentials { password, url })
}

/// Removes a tenant with all that it has; one that is not there is no error.
///
/// # Errors
/// As [`create_tenant`].
pub fn remove_tenant(url: &str, schema: &str, user: &str) -> Result<(), OpenError> {
    let (address, tenant) = checked(url, schema, user)?;
    postgres::remove_tenant(&address, tenant).map_err(OpenError::Store)
}

fn checked<'t>(url: &str, schema: &'t str, user: &'t str) -> Result<(Address, Tenant<'t>), OpenError> {
    let Target::Server(address) = url::parse(url.as_ref(), None)?.target else {
        return Err(OpenError::Store("tenants need PostgreSQL: on SQLite a file is a tenant".to_owned()));
    };
    let tenant = Tenant { schema, user };
    tenant.check().map_err(OpenError::Url)?;
    Ok((*address, tenant))
}
