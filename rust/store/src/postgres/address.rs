//! Reads where a store on a server is: the words of a URL, then libpq's environment, then libpq's defaults.
//! Invariant: no message repeats what may be a piece of a password, and nothing that is shown holds one.
//! Longer than a room should be: two ways to write an address, each word of which falls back on the same others.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::url::{Durability, durability_named, settle};

/// Where everything of ours stands, unless the URL says otherwise.
pub const SCHEMA: &str = "cloaca";
/// The server keeps no more of a name.
pub const NAME_BYTES_MAX: usize = 63;
const HOSTS_MAX: usize = 16;
const PORT: u16 = 5432;
const FORM: &str = "postgresql://USER@HOST:PORT/DATABASE?sslmode=verify-full";
const ESCAPES: &str = "in a user's name or a password write '@' as %40, ':' as %3A, '/' as %2F, '?' as %3F, '#' as %23 and '%' as %25";

/// What a URL may say behind its question mark, with the variable that says it where the URL doesn't.
const WORDS: [(&str, Option<&str>); 28] = [
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("durability", None),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("schema", None),
    ("ssl", None),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
    ("fallback_application_name", None),
];

/// A store on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its servers, of which the first is taken that can be reached and fits.
    pub hosts: Vec<Host>,
    /// Who asks.
    pub user: String,
    /// By which, if it is not in the password file.
    pub password: Option<Secret>,
    /// Where passwords stand, if there is such a file.
    pub passfile: Option<PathBuf>,
    /// Which database.
    pub database: String,
    /// How much is hidden on the way.
    pub encryption: Encryption,
    /// Which of several servers fits.
    pub session: Session,
    /// For how long one host is waited for; none leaves that to us.
    pub patience: Option<Duration>,
    /// How a connection is kept alive.
    pub keepalive: Keepalive,
    /// What the server calls us.
    pub application: String,
    /// Settings for the server, as `-c name=value`.
    pub options: Option<String>,
    /// The schema in which all of it stands.
    pub schema: String,
    /// What survives a power loss.
    pub durability: Durability,
    /// What messages call it.
    pub name: String,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, or its address where no other name is known.
    pub place: Place,
    /// Where it listens.
    pub port: u16,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Over the net, by a name that is looked up unless an address stands beside it.
    Net(String, Option<IpAddr>),
    /// By a socket in a folder of this machine.
    Folder(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Net(name, _) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Place::Net(name, _) => write!(f, "{name}:{}", self.port),
            Place::Folder(folder) => {
                write!(f, "{}", folder.join(format!(".s.PGSQL.{}", self.port)).display())
            }
        }
    }
}

/// What nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How a connection is encrypted, and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Whether, and what is checked.
    pub mode: SslMode,
    /// Who vouches for the server.
    pub roots: Roots,
    /// By which certificate and key we are known.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether it begins without asking in plain text.
    pub is_direct: bool,
    /// Whether the password is bound to the server's certificate.
    pub binding: Binding,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server wants it.
    Allow,
    /// If the server can.
    Prefer,
    /// Always.
    Require,
    /// Always, to a server for which somebody vouches whom we trust.
    VerifyCa,
    /// The same, and by the name under which we ask for it.
    VerifyFull,
}

/// Who vouches for servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Whom this machine trusts.
    System,
    /// Whoever stands in a file.
    File(PathBuf),
}

/// libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Never.
    Disable,
    /// Where it can be.
    Prefer,
    /// Always.
    Require,
}

/// libpq's `target_session_attrs`, as far as a store can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// The first that answers.
    Any,
    /// The first that takes writes.
    Writes,
    /// The first that is no standby.
    Primary,
}

/// How a connection is kept alive, and given up when it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Whether the system asks at all.
    pub is_on: bool,
    /// After so long without a word.
    pub idle: Option<Duration>,
    /// Once more after so long.
    pub interval: Option<Duration>,
    /// So often.
    pub count: Option<u32>,
    /// What was sent and not received is waited for this long.
    pub unsent: Option<Duration>,
}

/// What this machine says that a URL leaves open.
pub struct Machine<'m> {
    /// A variable of the environment.
    pub variable: &'m dyn Fn(&str) -> Option<String>,
    /// Whether there is such a file or folder.
    pub exists: &'m dyn Fn(&Path) -> bool,
    /// Whom the system takes us for.
    pub user: &'m dyn Fn() -> Option<String>,
}

impl Machine<'_> {
    /// This one.
    pub const HERE: Machine<'static> = Machine {
        variable: &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
        exists: &|path| path.exists(),
        user: &user_here,
    };

    fn home(&self, name: &str) -> Option<PathBuf> {
        let home = (self.variable)(if cfg!(windows) { "APPDATA" } else { "HOME" })?;
        Some(Path::new(&home).join(name)).filter(|path| (self.exists)(path))
    }
}

#[cfg(target_os = "linux")]
fn user_here() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

#[cfg(not(target_os = "linux"))]
fn user_here() -> Option<String> {
    std::env::var(if cfg!(windows) { "USERNAME" } else { "USER" }).ok()
}

impl Address {
    /// Reads what stands behind `postgresql://`; `durability` is the option of that name given beside the URL.
    ///
    /// # Errors
    /// The message for the user.
    pub fn parse(rest: &str, durability: Option<Durability>, machine: &Machine<'_>) -> Result<Self, String> {
        let mut words = Words(words_of(rest)?);
        for (word, variable) in WORDS {
            let value = || variable.and_then(|variable| (machine.variable)(variable));
            let is_given = words.0.contains_key(word) || word == "host" && words.0.contains_key("hostaddr");
            if !is_given {
                words.0.extend(value().map(|value| (word.to_owned(), value)));
            }
        }
        let user = match words.take("user") {
            Some(user) => user,
            None => (machine.user)()
                .ok_or_else(|| format!("the database URL names no user; write it as {FORM}"))?,
        };
        let database = words.take("dbname").unwrap_or_else(|| user.clone());
        let hosts = hosts(&mut words, machine)?;
        let schema = words.take("schema").map_or_else(|| Ok(SCHEMA.to_owned()), schema_named)?;
        let said = words.take("durability").map(|value| durability_named(&value)).transpose();
        let durability = settle(said.map_err(text)?, durability).map_err(text)?;
        let session = session(words.take("target_session_attrs"), hosts.len())?;
        let encryption = encryption(&mut words, machine)?;
        let keepalive = Keepalive {
            is_on: words.number("keepalives")?.is_none_or(|asked| asked != 0),
            idle: words.seconds("keepalives_idle")?,
            interval: words.seconds("keepalives_interval")?,
            count: words.number("keepalives_count")?.filter(|&count| count > 0),
            unsent: words
                .number("tcp_user_timeout")?
                .filter(|&ms| ms > 0)
                .map(|ms| Duration::from_millis(ms.into())),
        };
        if let Some(encoding) = words.take("client_encoding")
            && !["utf8", "utf-8", "auto", "unicode"].contains(&encoding.to_ascii_lowercase().as_str())
        {
            return Err("client_encoding in the database URL must be 'UTF8'; leave it out".to_owned());
        }
        if words.take("gssencmode").is_some_and(|mode| mode == "require") {
            return Err("gssencmode 'require' is not supported; use TLS: sslmode=verify-full".to_owned());
        }
        let fallback = words.take("fallback_application_name");
        let application = words.take("application_name").or(fallback).unwrap_or_else(|| "cloaca".to_owned());
        let name = name(&database, &hosts, &schema);
        Ok(Self {
            user,
            password: words.take("password").map(Secret),
            passfile: words.take("passfile").map(PathBuf::from).or_else(|| machine.home(PASSFILE)),
            database,
            encryption,
            session,
            patience: words.seconds("connect_timeout")?,
            keepalive,
            application,
            options: words.take("options"),
            schema,
            durability,
            name,
            hosts,
        })
    }
}

/// What an administrator's URL says that is of nobody else's business, or is said anew.
const OWN_WORDS: [&str; 10] =
    ["user", "password", "passfile", "sslcert", "sslkey", "schema", "dbname", "host", "hostaddr", "port"];

impl Address {
    /// The URL by which another user gets at a schema of this database; `rest` is what this was read from, and what else it says stays.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub fn url_for(&self, rest: &str, user: &str, password: &str, schema: &str) -> Result<String, String> {
        let mut words = words_of(rest)?;
        words.retain(|word, _| !OWN_WORDS.contains(&word.as_str()));
        words.insert("schema".to_owned(), schema.to_owned());
        let is_net = self.hosts.iter().all(|host| matches!(host.place, Place::Net(..)));
        let (mut names, mut addresses, mut ports, mut net) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Host { place, port } in &self.hosts {
            let (name, address) = match place {
                Place::Net(name, address) => (name.clone(), address.map(|address| address.to_string())),
                Place::Folder(folder) => (folder.display().to_string(), None),
            };
            net.push(match name.contains(':') {
                true => format!("[{}]:{port}", encoded(&name).replace("%3A", ":")),
                false => format!("{}:{port}", encoded(&name)),
            });
            names.push(name);
            addresses.push(address.unwrap_or_default());
            ports.push(port.to_string());
        }
        if addresses.iter().any(|address| !address.is_empty()) {
            words.insert("hostaddr".to_owned(), addresses.join(","));
        }
        if !is_net {
            words.insert("host".to_owned(), names.join(","));
            words.insert("port".to_owned(), ports.join(","));
            net.clear();
        }
        let options: Vec<String> =
            words.iter().map(|(word, value)| format!("{word}={}", encoded(value))).collect();
        Ok(format!(
            "postgresql://{}:{}@{}/{}?{}",
            encoded(user),
            encoded(password),
            net.join(","),
            encoded(&self.database),
            options.join("&")
        ))
    }
}

/// A text as a part of a URL.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

const PASSFILE: &str = if cfg!(windows) { "postgresql/pgpass.conf" } else { ".pgpass" };

fn text(error: crate::OpenError) -> String {
    error.to_string()
}

fn name(database: &str, hosts: &[Host], schema: &str) -> String {
    let hosts: Vec<String> = hosts.iter().map(Host::to_string).collect();
    let place = format!("{database} at {}", hosts.join(", "));
    if schema == SCHEMA { place } else { format!("{place}, schema {schema}") }
}

/// What a URL says, by libpq's words.
struct Words(BTreeMap<String, String>);

impl Words {
    fn take(&mut self, word: &str) -> Option<String> {
        self.0.remove(word).filter(|value| !value.is_empty())
    }

    fn number(&mut self, word: &str) -> Result<Option<u32>, String> {
        let Some(value) = self.take(word) else { return Ok(None) };
        value
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| format!("{word} in the database URL must be a whole number that is not negative"))
    }

    /// Zero leaves it to us, as with libpq.
    fn seconds(&mut self, word: &str) -> Result<Option<Duration>, String> {
        Ok(self
            .number(word)?
            .filter(|&seconds| seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into())))
    }
}

/// Takes a URL apart.
fn words_of(rest: &str) -> Result<BTreeMap<String, String>, String> {
    let mut words = BTreeMap::new();
    // As libpq does it: a name of a user ends at the first '@', if no '/' stands before that.
    let (login, rest) = match rest.find(['@', '/']) {
        Some(place) if rest[place..].starts_with('@') => (Some(&rest[..place]), &rest[place + 1..]),
        _ => (None, rest),
    };
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let (net, path) = place.split_once('/').map_or((place, None), |(net, path)| (net, Some(path)));
    let is_torn = place.contains(['@', '#']) || path.is_some_and(|path| path.contains('/'));
    if is_torn {
        return Err(format!("the database URL cannot be taken apart: its form is {FORM}; {ESCAPES}"));
    }
    if let Some(login) = login {
        let (user, password) =
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        words.insert("user".to_owned(), decoded(user)?);
        words.extend(
            password
                .map(|password| Ok::<_, String>(("password".to_owned(), decoded(password)?)))
                .transpose()?,
        );
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in net.split(',').filter(|_| !net.is_empty()) {
        let (name, port) = name_and_port(host)?;
        names.push(decoded(name)?);
        ports.push(port.to_owned());
    }
    if names.iter().any(|name| !name.is_empty()) {
        words.insert("host".to_owned(), names.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        words.insert("port".to_owned(), ports.join(","));
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        words.insert("dbname".to_owned(), decoded(path)?);
    }
    // A password with a '/' leaves its '@' somewhere behind.
    let may_show = !query.is_some_and(|query| query.contains('@'));
    for option in query.unwrap_or_default().split('&').filter(|option| !option.is_empty()) {
        let (word, value) = option.split_once('=').unwrap_or((option, ""));
        if !WORDS.iter().any(|(known, _)| *known == word) {
            return Err(unknown(word, may_show));
        }
        if value.contains('#') {
            return Err(format!("the value of {word} in the database URL holds a '#'; write it as %23"));
        }
        words.insert(word.to_owned(), decoded(value)?);
    }
    Ok(words)
}

fn unknown(word: &str, may_show: bool) -> String {
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let which =
        if may_show && is_word { format!("unknown option '{word}'") } else { "an unknown option".to_owned() };
    let known: Vec<&str> = WORDS.iter().map(|(known, _)| *known).collect();
    format!("{which} in the database URL; the options are {}", known.join(", "))
}

/// A host, whose address may stand in brackets, and its port.
fn name_and_port(host: &str) -> Result<(&str, &str), String> {
    let Some(address) = host.strip_prefix('[') else {
        return Ok(host.split_once(':').unwrap_or((host, "")));
    };
    match address.split_once(']') {
        Some((name, "")) => Ok((name, "")),
        Some((name, port)) if port.starts_with(':') => Ok((name, &port[1..])),
        _ => Err("a host in the database URL begins with '[' and has no ']' before its port".to_owned()),
    }
}

/// Each `%XX` as the byte that it stands for.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let value = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.ok_or_else(|| {
            format!("a '%' in the database URL is not followed by two hexadecimal digits; {ESCAPES}")
        })?);
        rest = &after[2..];
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => {
            Err("the database URL contains a NUL character; remove it".to_owned())
        }
        Ok(text) => Ok(text),
        Err(_) => Err("what the database URL spells with '%' is not UTF-8".to_owned()),
    }
}

fn hosts(words: &mut Words, machine: &Machine<'_>) -> Result<Vec<Host>, String> {
    let list = |value: Option<String>| -> Vec<String> {
        value.map(|value| value.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
    };
    let (names, addresses, ports) =
        (list(words.take("host")), list(words.take("hostaddr")), list(words.take("port")));
    let count = names.len().max(addresses.len()).max(1);
    if !addresses.is_empty() && !names.is_empty() && addresses.len() != names.len() {
        return Err("host and hostaddr in the database URL must name equally many servers".to_owned());
    }
    if ports.len() > 1 && ports.len() != count {
        return Err("the database URL has more than one port, and not one for each host".to_owned());
    }
    if count > HOSTS_MAX {
        return Err(format!("the database URL names {count} hosts; at most {HOSTS_MAX} are tried"));
    }
    let of = |parts: &[String], index: usize| parts.get(index).filter(|part| !part.is_empty()).cloned();
    let host = |index| {
        let port = if ports.len() == 1 { of(&ports, 0) } else { of(&ports, index) };
        let port = match port {
            Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or_else(|| {
                format!(
                    "a port in the database URL is no number from 1 to 65535; its form is {FORM}; {ESCAPES}"
                )
            })?,
            None => PORT,
        };
        let address = match of(&addresses, index) {
            Some(address) => Some(address.parse::<IpAddr>().map_err(|_| {
                "hostaddr in the database URL is no numeric address; a name belongs into host".to_owned()
            })?),
            None => None,
        };
        let place = match of(&names, index) {
            Some(folder) if folder.starts_with('/') => Place::Folder(folder.into()),
            Some(name) => Place::Net(name, address),
            None => match address {
                Some(address) => Place::Net(address.to_string(), Some(address)),
                None => place_by_default(port, machine),
            },
        };
        Ok(Host { place, port })
    };
    (0..count).map(host).collect()
}

/// The first of the usual folders in which a server listens; the first that there is, if none does.
fn place_by_default(port: u16, machine: &Machine<'_>) -> Place {
    if cfg!(windows) {
        return Place::Net("localhost".to_owned(), None);
    }
    let folders = ["/var/run/postgresql", "/run/postgresql", "/tmp"].map(PathBuf::from);
    let listens = |folder: &&PathBuf| (machine.exists)(&folder.join(format!(".s.PGSQL.{port}")));
    let there = |folder: &&PathBuf| (machine.exists)(folder);
    let folder = folders.iter().find(listens).or_else(|| folders.iter().find(there));
    folder.map_or_else(|| Place::Net("localhost".to_owned(), None), |folder| Place::Folder(folder.clone()))
}

fn schema_named(schema: String) -> Result<String, String> {
    let lower = schema.to_ascii_lowercase();
    if schema.len() > NAME_BYTES_MAX {
        Err(format!(
            "schema in the database URL has {} bytes; PostgreSQL keeps at most {NAME_BYTES_MAX}",
            schema.len()
        ))
    } else if lower.starts_with("pg_") || ["information_schema", "$user"].contains(&lower.as_str()) {
        Err(format!("schema '{schema}' belongs to PostgreSQL itself; choose another, such as '{SCHEMA}'"))
    } else {
        Ok(schema)
    }
}

fn session(word: Option<String>, hosts: usize) -> Result<Session, String> {
    match word.as_deref() {
        // With several servers, one that takes no writes is no use.
        None | Some("any") => Ok(if hosts > 1 { Session::Writes } else { Session::Any }),
        Some("read-write") => Ok(Session::Writes),
        Some("primary") => Ok(Session::Primary),
        Some("read-only" | "standby" | "prefer-standby") => Err(
            "target_session_attrs in the database URL asks for a server that takes no writes; use 'read-write' or 'primary'"
                .to_owned(),
        ),
        Some(_) => Err("target_session_attrs in the database URL must be 'any', 'read-write' or 'primary'".to_owned()),
    }
}

fn encryption(words: &mut Words, machine: &Machine<'_>) -> Result<Encryption, String> {
    let said = words.take("sslmode");
    let ssl = words.take("ssl").filter(|ssl| said.is_none() && ssl == "true");
    let mut mode = match said.as_deref().or(ssl.is_some().then_some("require")) {
        None => None,
        Some("disable") => Some(SslMode::Disable),
        Some("allow") => Some(SslMode::Allow),
        Some("prefer") => Some(SslMode::Prefer),
        Some("require") => Some(SslMode::Require),
        Some("verify-ca") => Some(SslMode::VerifyCa),
        Some("verify-full") => Some(SslMode::VerifyFull),
        Some(_) => {
            return Err("sslmode in the database URL must be 'disable', 'allow', 'prefer', 'require', 'verify-ca' or \
                        'verify-full'"
                .to_owned());
        }
    };
    let roots = match words.take("sslrootcert") {
        Some(word) if word == "system" => {
            if mode.is_some_and(|mode| mode != SslMode::VerifyFull) {
                return Err(
                    "sslrootcert=system in the database URL goes with sslmode=verify-full alone".to_owned()
                );
            }
            mode = Some(SslMode::VerifyFull);
            Roots::System
        }
        Some(path) => Roots::File(path.into()),
        None => machine.home(".postgresql/root.crt").map_or(Roots::System, Roots::File),
    };
    // With whom we trust at hand, libpq checks.
    let mode = match mode.unwrap_or(SslMode::Prefer) {
        SslMode::Require if matches!(roots, Roots::File(_)) => SslMode::VerifyCa,
        mode => mode,
    };
    let certificate =
        words.take("sslcert").map(PathBuf::from).or_else(|| machine.home(".postgresql/postgresql.crt"));
    let key = words.take("sslkey").map(PathBuf::from).or_else(|| machine.home(".postgresql/postgresql.key"));
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            return Err("sslcert in the database URL needs its key: add sslkey=PATH".to_owned());
        }
        (None, _) => None,
    };
    let is_direct = match words.take("sslnegotiation").as_deref() {
        None | Some("postgres") => false,
        Some("direct") if matches!(mode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => true,
        Some("direct") => {
            return Err("sslnegotiation=direct in the database URL needs sslmode=require or a stronger one"
                .to_owned());
        }
        Some(_) => return Err("sslnegotiation in the database URL must be 'postgres' or 'direct'".to_owned()),
    };
    let binding = match words.take("channel_binding").as_deref() {
        None | Some("prefer") => Binding::Prefer,
        Some("disable") => Binding::Disable,
        Some("require") => Binding::Require,
        Some(_) => {
            return Err(
                "channel_binding in the database URL must be 'disable', 'prefer' or 'require'".to_owned()
            );
        }
    };
    Ok(Encryption { mode, roots, certificate, is_direct, binding })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these variables and files, on which we are `me`.
    fn on(variables: &[(&str, &str)], files: &[&str], rest: &str) -> Result<Address, String> {
        let machine = Machine {
            variable: &|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            },
            exists: &|path| files.iter().any(|file| Path::new(file) == path),
            user: &|| Some("me".to_owned()),
        };
        Address::parse(rest, None, &machine)
    }

    fn read(rest: &str) -> Address {
        on(&[], &[], rest).unwrap()
    }

    fn refusal(rest: &str) -> String {
        on(&[], &[], rest).unwrap_err()
    }

    fn shown(address: &Address) -> Vec<String> {
        address.hosts.iter().map(Host::to_string).collect()
    }

    #[test]
    fn a_url_for_another_user_is_as_the_first_one_and_shows_nothing_of_its_user() {
        let rest = "ann:p%40ss@[::1]:1,db.example/runs?sslmode=verify-full&sslkey=/k&sslcert=/c&application_name=a%20b&schema=old";
        let found = read(rest).url_for(rest, "bo b", "s:/@ä", "t\"x").unwrap();
        let expected = "postgresql://bo%20b:s%3A%2F%40%C3%A4@[::1]:1,db.example:5432/runs?application_name=a%20b&schema=t%22x&sslmode=verify-full";
        assert_eq!(found, expected);
        let other = read(found.strip_prefix("postgresql://").unwrap());
        assert_eq!(other.password, Some(Secret("s:/@ä".to_owned())));
        assert_eq!((other.user.as_str(), other.schema.as_str()), ("bo b", "t\"x"));
        // What the environment said of the server is said by the URL.
        let machine = [("PGHOST", "/sock"), ("PGPORT", "7"), ("PGDATABASE", "d"), ("PGPASSWORD", "no")];
        let found = on(&machine, &[], "").unwrap().url_for("", "u", "p", "s").unwrap();
        assert_eq!(found, "postgresql://u:p@/d?host=%2Fsock&port=7&schema=s");
        let rest = "a,b/d?hostaddr=127.0.0.1,&port=3";
        let found = read(rest).url_for(rest, "u", "p", "s").unwrap();
        assert_eq!(found, "postgresql://u:p@a:3,b:3/d?hostaddr=127.0.0.1%2C&schema=s");
        assert_eq!(read(found.strip_prefix("postgresql://").unwrap()).hosts, read(rest).hosts);
    }

    #[test]
    fn a_whole_url_is_read() {
        let address = read("ann:p%40ss%2Fword@db.example:5433/runs?sslmode=verify-full&schema=ours");
        assert_eq!((address.user.as_str(), address.database.as_str()), ("ann", "runs"));
        assert_eq!(address.password, Some(Secret("p@ss/word".to_owned())));
        assert_eq!(shown(&address), ["db.example:5433"]);
        assert_eq!(address.encryption.mode, SslMode::VerifyFull);
        assert_eq!((address.schema.as_str(), address.durability), ("ours", Durability::Full));
        assert_eq!(address.name, "runs at db.example:5433, schema ours");
    }

    #[test]
    fn what_a_url_leaves_open_libpqs_variables_say() {
        let variables = [
            ("PGHOST", "db.example"),
            ("PGPORT", "6000"),
            ("PGUSER", "ann"),
            ("PGDATABASE", "runs"),
            ("PGPASSWORD", "secret"),
            ("PGSSLMODE", "require"),
            ("PGCONNECT_TIMEOUT", "3"),
            ("PGAPPNAME", "app"),
            ("PGOPTIONS", "-c work_mem=1MB"),
            ("PGPASSFILE", "/etc/pgpass"),
        ];
        let address = on(&variables, &[], "").unwrap();
        assert_eq!(address.name, "runs at db.example:6000");
        assert_eq!((address.user.as_str(), address.application.as_str()), ("ann", "app"));
        assert_eq!(address.password, Some(Secret("secret".to_owned())));
        assert_eq!(address.encryption.mode, SslMode::Require);
        assert_eq!(address.patience, Some(Duration::from_secs(3)));
        assert_eq!(address.options.as_deref(), Some("-c work_mem=1MB"));
        assert_eq!(address.passfile, Some("/etc/pgpass".into()));
        let address = on(&variables, &[], "bob@other/db?sslmode=disable&connect_timeout=0").unwrap();
        assert_eq!(address.name, "db at other:6000");
        assert_eq!((address.encryption.mode, address.patience), (SslMode::Disable, None));
    }

    #[test]
    fn with_nothing_said_it_is_this_users_database_on_this_machine() {
        let address = on(&[], &["/tmp"], "").unwrap();
        assert_eq!(address.name, "me at /tmp/.s.PGSQL.5432");
        let listening = ["/var/run/postgresql", "/tmp/.s.PGSQL.5499", "/tmp"];
        assert_eq!(shown(&on(&[], &listening, "?port=5499").unwrap()), ["/tmp/.s.PGSQL.5499"]);
        assert_eq!(shown(&on(&[], &listening, "?port=5400").unwrap()), ["/var/run/postgresql/.s.PGSQL.5400"]);
        let address = on(&[("HOME", "/home/me")], &["/home/me/.pgpass"], "").unwrap();
        assert_eq!(address.passfile, Some("/home/me/.pgpass".into()));
    }

    #[test]
    fn several_hosts_have_a_port_each_or_one_for_all_and_must_take_writes() {
        let address = read("a:1,b,[::1]:3/db");
        assert_eq!(shown(&address), ["a:1", "b:5432", "[::1]:3"]);
        assert_eq!(address.session, Session::Writes);
        assert_eq!(shown(&read("a,b/db?port=7")), ["a:7", "b:7"]);
        assert_eq!(shown(&read("/db?host=a,/run/pg&port=7,8")), ["a:7", "/run/pg/.s.PGSQL.8"]);
        assert_eq!(read("a,b/db?target_session_attrs=primary").session, Session::Primary);
        assert!(refusal("a,b,c/db?port=7,8").contains("one for each host"));
        assert!(refusal("a/db?target_session_attrs=standby").contains("'read-write'"));
    }

    #[test]
    fn an_address_may_stand_beside_the_name_that_a_certificate_has() {
        let address = read("db.example/db?hostaddr=10.0.0.7");
        assert_eq!(
            address.hosts[0].place,
            Place::Net("db.example".to_owned(), Some("10.0.0.7".parse().unwrap()))
        );
        assert_eq!(
            shown(&on(&[("PGHOST", "other")], &[], "/db?hostaddr=10.0.0.7").unwrap()),
            ["10.0.0.7:5432"]
        );
        assert!(refusal("/db?hostaddr=db.example").contains("belongs into host"));
    }

    #[test]
    fn a_folder_may_be_spelt_as_a_host() {
        assert_eq!(shown(&read("%2Fvar%2Frun/db")), ["/var/run/.s.PGSQL.5432"]);
    }

    #[test]
    fn with_roots_at_hand_require_checks_who_vouches() {
        assert_eq!(read("h/d?sslmode=require&sslrootcert=/ca.pem").encryption.mode, SslMode::VerifyCa);
        let root = "/home/me/.postgresql/root.crt";
        let address = on(&[("HOME", "/home/me")], &[root], "h/d?sslmode=require").unwrap();
        assert_eq!(address.encryption.roots, Roots::File(root.into()));
        assert_eq!(address.encryption.mode, SslMode::VerifyCa);
        assert_eq!(read("h/d?sslrootcert=system").encryption.mode, SslMode::VerifyFull);
        assert_eq!(read("h/d?ssl=true").encryption.mode, SslMode::Require);
        assert!(refusal("h/d?sslmode=require&sslrootcert=system").contains("verify-full"));
        assert!(refusal("h/d?sslnegotiation=direct").contains("sslmode=require"));
        assert!(refusal("h/d?sslcert=/me.crt").contains("sslkey"));
    }

    #[test]
    fn a_schema_is_a_name_that_postgresql_takes() {
        assert_eq!(read("h/d?schema=a%22b%20%27").schema, "a\"b '");
        assert_eq!(read("h/d?schema=").schema, SCHEMA);
        assert!(refusal("h/d?schema=pg_own").contains("PostgreSQL itself"));
        assert!(refusal(&format!("h/d?schema={}", "x".repeat(64))).contains("64 bytes"));
    }

    #[test]
    fn an_unknown_option_or_value_is_refused_with_the_valid_ones() {
        let message = refusal("h/d?sslmod=disable");
        assert!(message.contains("'sslmod'") && message.contains("sslmode"), "{message}");
        for (rest, known) in [
            ("h/d?sslmode=on", "'verify-full'"),
            ("h/d?target_session_attrs=none", "'read-write'"),
            ("h/d?channel_binding=no", "'prefer'"),
            ("h/d?durability=some", "'full'"),
            ("h/d?connect_timeout=soon", "whole number"),
            ("h/d?keepalives_count=-1", "whole number"),
            ("h/d?client_encoding=latin1", "UTF8"),
            ("h/d?gssencmode=require", "TLS"),
            ("h:99999/d", "65535"),
            ("[::1/d", "']'"),
        ] {
            assert!(refusal(rest).contains(known), "{rest}: {}", refusal(rest));
        }
    }

    #[test]
    fn no_message_repeats_a_password_that_was_not_escaped() {
        for rest in [
            "me:SECRET/x@host/db",
            "me:1/SECRET@host/db",
            "me:1/?SECRET=w@host/db",
            "me:1/x?SECRET@host/db",
            "me:x@SECRET@host/db",
            "me:x%SECRET@host/db",
            "me:#SECRET/@host/db",
            "me:a/SECRET?b@host/db",
            "me:%FFSECRET@host/db",
        ] {
            let message = refusal(rest);
            assert!(!message.contains("SECRET") && message.len() > 40, "{rest}: {message}");
        }
        let shown = format!("{:?}", read("me:SECRET@host/db?password=SECRET"));
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}
