//! Where a store on a server is: what its URL says. Invariant: nothing of it that is shown holds a password.

use tokio_postgres::Config;

use crate::url::Durability;

/// Where everything of ours stands, unless the URL says otherwise.
pub const SCHEMA: &str = "cloaca";

/// A store on a server.
#[derive(Debug, Clone)]
pub struct Address {
    /// How its database is reached.
    pub config: Config,
    /// The schema in which all of it stands.
    pub schema: String,
    /// What survives a power loss.
    pub durability: Durability,
    /// What messages call it.
    pub name: String,
}

impl Address {
    /// Reads a URL that begins with `postgres://` or `postgresql://`.
    ///
    /// # Errors
    /// The message for the user.
    pub fn parse(url: &str, durability: Durability) -> Result<Self, String> {
        let (bare, schema) = without_schema(url);
        let config: Config = bare
            .parse()
            .map_err(|error| format!("this PostgreSQL URL cannot be read: {error}; the form is postgresql://USER@HOST/DATABASE"))?;
        let database = config.get_dbname().or(config.get_user()).unwrap_or("postgres").to_owned();
        let schema = schema.unwrap_or_else(|| SCHEMA.to_owned());
        let name = format!("{database} (schema {schema})");
        Ok(Self { config, schema, durability, name })
    }
}

fn without_schema(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (ours, theirs): (Vec<&str>, Vec<&str>) = query.split('&').partition(|word| word.starts_with("schema="));
    let schema = ours.first().map(|word| word["schema=".len()..].to_owned());
    let rest = theirs.join("&");
    (if rest.is_empty() { base.to_owned() } else { format!("{base}?{rest}") }, schema)
}
