//! Reaches the server of a store: one host after another, as the URL asks. Invariant: it comes back within a bound, a message says what to do, and none shows a
//! password.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage, Socket, config};

use crate::postgres::address::{Address, Binding, Host, Place, Session, SslMode};
use crate::postgres::tls::{Encrypted, Tls};

/// All hosts together are waited for this long, where the URL says nothing.
const PATIENCE: Duration = Duration::from_secs(8);
/// And so long by who only wants to know whether they are there.
const PROBE_PATIENCE: Duration = Duration::from_secs(4);
/// The oldest server that has what our statements use.
const VERSION_MIN: u32 = 13;

/// What moves a connection's bytes.
pub type Connected = tokio_postgres::Connection<Socket, Encrypted<Socket>>;

/// Why no server could be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The message for the user.
    pub text: String,
    /// Whether it may go better later, with nothing changed.
    pub passes: bool,
    /// Whether there is no server, as far as can be told.
    pub is_silent: bool,
}

/// A client of the first server that can be had, and what moves its bytes.
pub async fn connect(address: &Address) -> Result<(Client, Connected), Unreached> {
    let deadline = Instant::now() + PATIENCE;
    let mut failed: Vec<Unreached> = Vec::new();
    for (index, host) in address.hosts.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let fair = left / u32::try_from(address.hosts.len() - index).unwrap_or(u32::MAX);
        match one(address, host, address.patience.unwrap_or(fair)).await {
            Ok(found) => return Ok(found),
            Err(unreached) => failed.push(unreached),
        }
    }
    let passes = failed.iter().any(|unreached| unreached.passes);
    let is_silent = failed.iter().all(|unreached| unreached.is_silent);
    let texts: Vec<String> = failed.into_iter().map(|unreached| unreached.text).collect();
    Err(Unreached { text: texts.join("; "), passes, is_silent })
}

/// Whether one of its servers says anything, be it that it lets nobody in.
pub async fn is_there(address: &Address) -> bool {
    match timeout(PROBE_PATIENCE, connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(unreached)) => !unreached.is_silent,
        Err(_) => false,
    }
}

/// What ends a statement on a connection of `address`.
pub fn tls_of(address: &Address) -> Tls {
    match address.encryption.mode {
        SslMode::Disable => Tls::OFF,
        _ => Tls::of(&address.encryption).unwrap_or(Tls::OFF),
    }
}

async fn one(address: &Address, host: &Host, patience: Duration) -> Result<(Client, Connected), Unreached> {
    let (password, caution) = password(address, host);
    let refused = |error: &Error| refused(address, host, error, password.is_some(), caution.as_deref());
    let plain = Tls::OFF;
    let is_net = matches!(host.place, Place::Net(..));
    let mode = if is_net { address.encryption.mode } else { SslMode::Disable };
    let hidden = match mode {
        SslMode::Disable => Tls::OFF,
        _ => Tls::of(&address.encryption).map_err(|text| Unreached {
            text,
            passes: false,
            is_silent: false,
        })?,
    };
    let (first, second) = match mode {
        SslMode::Disable => ((config::SslMode::Disable, plain), None),
        SslMode::Allow => ((config::SslMode::Disable, plain), Some((config::SslMode::Require, hidden))),
        SslMode::Prefer => ((config::SslMode::Prefer, hidden), Some((config::SslMode::Disable, plain))),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            ((config::SslMode::Require, hidden), None)
        }
    };
    let attempt = async {
        let attempt = |(mode, tls): (config::SslMode, Tls)| {
            let config = config_of(address, host, mode, password.as_deref(), patience);
            async move { config.connect(tls).await }
        };
        let found = match (attempt(first).await, second) {
            // The other way is another entry in the server's pg_hba.conf, or no handshake.
            (Err(error), Some(second)) if is_of_encryption(&error) => {
                attempt(second).await.map_err(|_| refused(&error))?
            }
            (found, _) => found.map_err(|error| refused(&error))?,
        };
        fitting(address, host, found).await
    };
    let silent = || Unreached {
        text: format!(
            "no answer from {host} within {} s; see that the server runs there and that no firewall is in between",
            patience.as_secs_f32().round().max(1.0)
        ),
        passes: true,
        is_silent: true,
    };
    timeout(patience, attempt).await.map_err(|_| silent())?
}

fn config_of(
    address: &Address,
    host: &Host,
    mode: config::SslMode,
    password: Option<&str>,
    patience: Duration,
) -> Config {
    let mut config = Config::new();
    match &host.place {
        Place::Net(name, at) => {
            config.host(name);
            at.map(|at| config.hostaddr(at));
        }
        #[cfg(unix)]
        Place::Folder(folder) => {
            config.host_path(folder);
        }
        #[cfg(not(unix))]
        Place::Folder(folder) => {
            config.host(folder.to_string_lossy());
        }
    }
    config.port(host.port).user(&address.user).dbname(&address.database).ssl_mode(mode);
    config.application_name(&address.application);
    // A name may have several addresses, of which the first may be silent.
    config.connect_timeout(patience / 2);
    if address.encryption.is_direct {
        config.ssl_negotiation(config::SslNegotiation::Direct);
    }
    config.channel_binding(match address.encryption.binding {
        Binding::Disable => config::ChannelBinding::Disable,
        Binding::Prefer => config::ChannelBinding::Prefer,
        Binding::Require => config::ChannelBinding::Require,
    });
    if let Some(password) = password {
        config.password(password);
    }
    if let Some(options) = &address.options {
        config.options(options);
    }
    let keepalive = &address.keepalive;
    config.keepalives(keepalive.is_on);
    keepalive.idle.map(|idle| config.keepalives_idle(idle));
    keepalive.interval.map(|interval| config.keepalives_interval(interval));
    keepalive.count.map(|count| config.keepalives_retries(count));
    keepalive.unsent.map(|unsent| config.tcp_user_timeout(unsent));
    config
}

/// Looks at a server that has let us in: whether it is new enough, keeps any text, and takes writes.
async fn fitting(
    address: &Address,
    host: &Host,
    (client, mut connected): (Client, Connected),
) -> Result<(Client, Connected), Unreached> {
    const SQL: &str = "SELECT current_setting('server_version_num'), current_setting('transaction_read_only'), pg_is_in_recovery(),
        current_setting('server_encoding')";
    let answer = match select(Box::pin(client.simple_query(SQL)), &mut connected).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    };
    let Some(answer) = answer else {
        let text = format!("the server at {host} has closed the connection; see its log");
        return Err(Unreached { text, passes: true, is_silent: false });
    };
    let answer = answer.map_err(|error| refused(address, host, &error, true, None))?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some([row.get(0), row.get(1), row.get(2), row.get(3)]),
        _ => None,
    });
    let [version, read_only, recovers, encoding] = row.unwrap_or_default();
    let version = version.and_then(|version| version.parse::<u32>().ok()).unwrap_or(0) / 10_000;
    if version < VERSION_MIN {
        let text = format!(
            "the server at {host} is PostgreSQL {version}; cloaca needs {VERSION_MIN} or later: upgrade it"
        );
        return Err(Unreached { text, passes: false, is_silent: false });
    }
    // What a body leaves or raises may hold any sign, and its run could never be kept as over.
    if let Some(encoding) = encoding.filter(|encoding| *encoding != "UTF8") {
        let name = &address.name;
        let text = format!(
            "database '{name}' has the encoding {encoding}, which not every text can be kept in; make one for cloaca: \
             CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        );
        return Err(Unreached { text, passes: false, is_silent: false });
    }
    let is_unfit = match address.session {
        Session::Any => false,
        Session::Writes => read_only == Some("on"),
        Session::Primary => recovers == Some("t"),
    };
    match is_unfit {
        // It may be made the primary.
        true => Err(Unreached {
            text: format!("the server at {host} takes no writes: it is a standby"),
            passes: true,
            is_silent: false,
        }),
        false => Ok((client, connected)),
    }
}

/// Whether the same may go well with, or without, encryption.
fn is_of_encryption(error: &Error) -> bool {
    is_of_tls(error) || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// The client tells it by its text alone.
fn is_of_tls(error: &Error) -> bool {
    error.to_string().contains("TLS handshake")
}

/// What happened to a host, and what to do.
fn refused(
    address: &Address,
    host: &Host,
    error: &Error,
    has_password: bool,
    caution: Option<&str>,
) -> Unreached {
    let (user, database) = (&address.user, &address.database);
    let said = error.as_db_error().map(|said| said.message().to_owned());
    let said =
        said.unwrap_or_else(|| error.source().map_or_else(|| error.to_string(), |source| source.to_string()));
    let caution = caution.map(|caution| format!(" ({caution})")).unwrap_or_default();
    let is_never = |text: String| Unreached { text, passes: false, is_silent: false };
    let may_pass = |text: String| Unreached { text, passes: true, is_silent: error.code().is_none() };
    let Some(code) = error.code() else {
        if is_of_tls(error) {
            return is_never(untrusted(host, &said));
        }
        if error.to_string().contains("invalid configuration")
            || error.to_string().contains("authentication error")
        {
            return is_never(match has_password {
                false => format!(
                    "the server at {host} wants a password of user '{user}', and none is given: put it in the URL, in PGPASSWORD or \
                     in the password file{caution}"
                ),
                true => format!(
                    "the server at {host} and this program know no common way to prove who user '{user}' is: {said}"
                ),
            });
        }
        return match &host.place {
            Place::Folder(_) => may_pass(format!(
                "no server listens at {host} ({said}); start it, or name its host or its socket's folder in the URL"
            )),
            Place::Net(name, None) if said.contains("lookup") => {
                may_pass(format!("there is no host '{name}' ({said}); see its name in the database URL"))
            }
            Place::Net(..) => may_pass(format!(
                "the server at {host} cannot be reached ({said}); see that it runs and listens there (listen_addresses, port)"
            )),
        };
    };
    match code {
        code if *code == SqlState::INVALID_PASSWORD => is_never(format!(
            "the server at {host} does not take the password of user '{user}'; see it in the URL, in PGPASSWORD or in the password \
             file{caution}"
        )),
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => is_never(format!(
            "the server at {host} does not let user '{user}' in: {said}; see the user's name, sslmode, and the server's pg_hba.conf"
        )),
        code if *code == SqlState::INVALID_CATALOG_NAME => is_never(format!(
            "the server at {host} has no database '{database}'; make it (createdb '{database}'), or name another in the URL"
        )),
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => is_never(format!(
            "user '{user}' may not use database '{database}' at {host}: {said}; grant CONNECT on it"
        )),
        code if *code == SqlState::TOO_MANY_CONNECTIONS => may_pass(format!(
            "the server at {host} has no connection left: {said}; a runner needs three, and one more for each long question: raise max_connections, or put a pooler before it"
        )),
        code => match ["08", "53", "57", "58"].iter().any(|class| code.code().starts_with(class)) {
            true => may_pass(format!("the server at {host} does not serve now: {said}")),
            false => is_never(format!("the server at {host} refuses: {said} (SQLSTATE {})", code.code())),
        },
    }
}

fn untrusted(host: &Host, said: &str) -> String {
    let way = if said.contains("does not support TLS") {
        "it speaks none; turn on ssl there, or use sslmode=disable where nobody can listen"
    } else if said.contains("UnknownIssuer") || said.contains("CaUsedAsEndEntity") {
        "nobody vouches for it who is trusted here; name who does with '?sslrootcert=PATH'"
    } else if said.contains("not valid for name") || said.contains("NotValidForName") {
        "its certificate is for another name; use that name as the host, or sslmode=verify-ca"
    } else {
        "see its certificate, sslmode and sslrootcert"
    };
    format!("TLS with the server at {host} has failed ({said}): {way}")
}

/// The password for a host, and why the password file was of no use, if it was not.
fn password(address: &Address, host: &Host) -> (Option<String>, Option<String>) {
    if let Some(password) = &address.password {
        return (Some(password.0.clone()), None);
    }
    let Some(path) = &address.passfile else { return (None, None) };
    let place = match &host.place {
        Place::Net(name, _) => name.clone(),
        Place::Folder(folder) if is_usual(folder) => "localhost".to_owned(),
        Place::Folder(folder) => folder.display().to_string(),
    };
    let shown = path.display();
    if is_open_to_others(path) {
        return (
            None,
            Some(format!("password file '{shown}' is not used, because others may read it: chmod 0600 it")),
        );
    }
    match fs::read_to_string(path) {
        Ok(lines) => {
            let wanted = [&place, &host.port.to_string(), &address.database, &address.user];
            match lines.lines().find_map(|line| password_in(line, wanted)) {
                Some(password) => (Some(password), None),
                None => (None, Some(format!("password file '{shown}' has no line for this"))),
            }
        }
        Err(error) => (None, Some(format!("password file '{shown}' cannot be read: {error}"))),
    }
}

/// Where servers listen by default: libpq looks up their passwords under another name.
fn is_usual(folder: &Path) -> bool {
    ["/var/run/postgresql", "/run/postgresql", "/tmp"].iter().any(|usual| Path::new(usual) == folder)
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

/// The password of a line `host:port:database:user:password`, if it is for what is wanted.
fn password_in(line: &str, wanted: [&String; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![(String::new(), false)];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let is_last = fields.len() > wanted.len();
        let (field, is_literal) = fields.last_mut()?;
        match character {
            '\\' => {
                *is_literal = true;
                field.extend(characters.next());
            }
            ':' if !is_last => fields.push((String::new(), false)),
            other => field.push(other),
        }
    }
    let (password, _) = fields.get(wanted.len())?.clone();
    let fits = |((field, is_literal), wanted): (&(String, bool), &&String)| {
        field == *wanted || field == "*" && !is_literal
    };
    fields.iter().zip(&wanted).all(fits).then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_password_file_is_for_whom_it_names() {
        let [host, port, database, user] = ["h:1", "5432", "runs", "ann"].map(str::to_owned);
        let find = |line| password_in(line, [&host, &port, &database, &user]);
        assert_eq!(find(r"h\:1:5432:runs:ann:pa\:s\\s:word").as_deref(), Some(r"pa:s\s:word"));
        assert_eq!(find("*:*:*:*:any").as_deref(), Some("any"));
        for other in
            ["", "#*:*:*:*:any", r"h\:1:5432:runs:bob:x", r"\*:*:*:*:x", "*:*:*", r"h\:1:5433:runs:ann:x"]
        {
            assert_eq!(find(other), None, "{other}");
        }
    }
}
