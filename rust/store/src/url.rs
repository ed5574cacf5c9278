//! Reads a store's URL. Asks the file system only which folders exist, to tell the two meanings of three slashes apart; of a server's URL, which `address` reads
//! on, what libpq asks of the machine.
//! Invariant: a message never repeats a URL that it could not read, because it may hold a password.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::OpenError;
use crate::postgres::{Address, Machine};

const FORMS: &str = "':memory:', 'sqlite://PATH', 'sqlite:///PATH', a plain path or 'postgresql://USER@HOST/DATABASE', \
                     each with '?durability=full' or '?durability=normal' if wanted";
const MEMORY: &str = ":memory:";

/// What survives a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every commit.
    Full,
    /// Everything but the last moments.
    Normal,
}

/// Where the data lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// In this process only.
    Memory,
    /// In a file, by the path as given.
    File(PathBuf),
    /// On a server.
    Server(Box<Address>),
}

/// A URL, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Where the data lives.
    pub target: Target,
    /// What survives a power loss.
    pub durability: Durability,
}

/// Reads `url`; `durability` is the option of that name given beside it.
///
/// # Errors
/// [`OpenError::Url`] for what is malformed.
pub fn parse(url: &OsStr, durability: Option<&str>) -> Result<Location, OpenError> {
    match url.to_str() {
        Some(url) => parse_with(url, durability, &|folder| folder.is_dir()),
        None => {
            let found = parse_with(&spelt(url), durability, &|folder| meant(folder).is_dir())?;
            let target = match found.target {
                Target::File(path) => Target::File(meant(&path)),
                other => other,
            };
            Ok(Location { target, ..found })
        }
    }
}

/// Bytes that are no text stand as these characters, by which nobody calls a file, while a URL is read.
const SPELT: u32 = 0x0010_FF00;

/// A URL whose path is no text, as text.
fn spelt(url: &OsStr) -> String {
    let mut text = String::new();
    for chunk in url.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|&byte| char::from_u32(SPELT + u32::from(byte))));
    }
    text
}

/// The path that was spelt like this.
#[cfg(unix)]
fn meant(path: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::new();
    for character in path.to_string_lossy().chars() {
        match u8::try_from(u32::from(character).wrapping_sub(SPELT)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Names of files are text here.
#[cfg(not(unix))]
fn meant(path: &Path) -> PathBuf {
    path.to_owned()
}

/// [`parse`] with the file system handed in.
fn parse_with(
    url: &str,
    durability: Option<&str>,
    is_folder: &dyn Fn(&Path) -> bool,
) -> Result<Location, OpenError> {
    if url.is_empty() {
        return Err(OpenError::Url(format!("the database URL is empty; use {FORMS}")));
    }
    if url.contains('\0') {
        return Err(OpenError::Url("the database URL contains a NUL character; remove it".to_owned()));
    }
    let durability = durability.map(durability_named).transpose()?;
    if let Some(("postgres" | "postgresql", rest)) = scheme(url) {
        // What was read from a file ends with its line.
        if url.contains(char::is_control) {
            let text = "the database URL contains a line break or another control character; remove it";
            return Err(OpenError::Url(text.to_owned()));
        }
        let address = Address::parse(rest, durability, &Machine::HERE).map_err(OpenError::Url)?;
        return Ok(Location { durability: address.durability, target: Target::Server(Box::new(address)) });
    }
    let (target, query) = split(url, is_folder)?;
    Ok(Location { target, durability: settle(durability_of(query)?, durability)? })
}

/// The target, and the query if there is one.
fn split<'u>(
    url: &'u str,
    is_folder: &dyn Fn(&Path) -> bool,
) -> Result<(Target, Option<&'u str>), OpenError> {
    match scheme(url) {
        // It may hold a password: it is not shown, and no file is made that is called so.
        Some(("sqlite", rest)) if is_meant_for_a_server(rest) => Err(refused_server()),
        Some(("sqlite", rest)) => {
            let (place, query) = match rest.split_once('?') {
                Some((place, query)) => (place, Some(query)),
                None => (rest, None),
            };
            Ok((sqlite_target(place, is_folder)?, query))
        }
        Some((other, _)) => Err(OpenError::Url(format!("unknown database scheme '{other}://'; use {FORMS}"))),
        None if starts_with_word(url, "file") || starts_with_word(url, "sqlite") => {
            let word = &url[..url.find(':').unwrap_or(0)];
            Err(OpenError::Url(format!("'{word}:' URIs are not supported; use {FORMS}")))
        }
        None if is_meant_for_a_server(url) => Err(refused_server()),
        None => {
            let (place, query) = split_plain(url);
            Ok((target_at(place)?, query))
        }
    }
}

/// The scheme without a driver's name, and what follows `://`.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let dialect = scheme.split('+').next().unwrap_or(scheme);
    is_scheme.then_some((dialect, rest))
}

fn refused_server() -> OpenError {
    OpenError::Url(format!(
        "the database looks like the URL of a server, and is none; look for blanks, quotes or words before it, and use {FORMS}"
    ))
}

/// Whether a text is meant for a server, by its right URL or by one that was misspelt: it may hold a password.
pub fn means_server(text: &str) -> bool {
    match scheme(text) {
        Some(("sqlite", rest)) => is_meant_for_a_server(rest),
        _ => is_meant_for_a_server(text),
    }
}

/// Whether a path is a URL that was misspelt, or what libpq takes instead of one.
fn is_meant_for_a_server(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let words =
        ["://", "postgres:/", "postgresql:/", "postgres//", "postgresql//", "jdbc:postgres", "password="];
    let starts = ["postgres:", "postgresql:"];
    words.iter().any(|word| path.contains(word))
        || starts.iter().any(|start| path.starts_with(start))
        || (path.starts_with("postgres") && path.contains('@'))
        || has_password(&path)
}

/// Whether something like `USER:PASSWORD@` stands in front of all folders. A file that is really called so is named by `./`.
fn has_password(path: &str) -> bool {
    let path = path.trim_start_matches(['/', '\\']);
    let Some((before, after)) = path.split_once(':') else { return false };
    let is_drive = before.len() == 1 && after.starts_with(['/', '\\']);
    after.contains('@') && !before.contains(['/', '\\']) && !is_drive
}

fn starts_with_word(url: &str, word: &str) -> bool {
    url.split_once(':').is_some_and(|(before, _)| before.eq_ignore_ascii_case(word))
}

/// A plain path may contain a question mark: only `?key=value` at its end is a query.
fn split_plain(path: &str) -> (&str, Option<&str>) {
    match path.rsplit_once('?') {
        Some((place, query)) if looks_like_option(query) => (place, Some(query)),
        _ => (path, None),
    }
}

fn looks_like_option(query: &str) -> bool {
    query
        .split_once('=')
        .is_some_and(|(key, _)| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

fn target_at(place: &str) -> Result<Target, OpenError> {
    match place {
        "" => Err(OpenError::Url(format!("the database URL names no file; use {FORMS}"))),
        MEMORY => Ok(Target::Memory),
        path => Ok(Target::File(PathBuf::from(path))),
    }
}

/// What follows `sqlite://`.
fn sqlite_target(place: &str, is_folder: &dyn Fn(&Path) -> bool) -> Result<Target, OpenError> {
    match place.strip_prefix('/') {
        None => target_at(place),
        Some("" | MEMORY) => target_at(&place[1..]),
        Some(rest) => Ok(Target::File(three_slashes(rest, is_folder))),
    }
}

/// After three slashes SQLAlchemy means a relative path, others an absolute one: the folder that exists decides.
fn three_slashes(rest: &str, is_folder: &dyn Fn(&Path) -> bool) -> PathBuf {
    let relative = PathBuf::from(rest);
    let absolute = Path::new("/").join(rest);
    let is_dotted = rest.starts_with("./") || rest.starts_with("../");
    if relative.is_absolute() || is_dotted || !rest.contains('/') {
        return relative;
    }
    let is_parent_folder = |path: &Path| path.parent().is_some_and(is_folder);
    if !is_parent_folder(&absolute) && is_parent_folder(&relative) { relative } else { absolute }
}

fn durability_of(query: Option<&str>) -> Result<Option<Durability>, OpenError> {
    let mut durability = None;
    for option in query.unwrap_or_default().split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if key != "durability" {
            return Err(OpenError::Url(format!(
                "unknown option '{key}' in the database URL; the only option is 'durability'"
            )));
        }
        durability = Some(settle(durability, Some(durability_named(value)?))?);
    }
    Ok(durability)
}

/// The word for it.
pub fn durability_named(value: &str) -> Result<Durability, OpenError> {
    match value {
        "full" => Ok(Durability::Full),
        "normal" => Ok(Durability::Normal),
        other => Err(OpenError::Url(format!("durability is '{other}'; it must be 'full' or 'normal'"))),
    }
}

/// One value from two places, full if neither says anything.
pub fn settle(first: Option<Durability>, second: Option<Durability>) -> Result<Durability, OpenError> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => {
            Err(OpenError::Url("durability is given twice with different values; give it once".to_owned()))
        }
        (first, second) => Ok(first.or(second).unwrap_or(Durability::Full)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDERS: [&str; 4] = ["/", "/tmp", "data", "."];

    fn read(url: &str) -> Result<Location, OpenError> {
        parse_with(url, None, &|folder| FOLDERS.iter().any(|known| Path::new(known) == folder))
    }

    fn file(url: &str) -> String {
        match read(url).unwrap().target {
            Target::File(path) => path.to_str().unwrap().to_owned(),
            other => panic!("{url} is {other:?}"),
        }
    }

    fn refusal(url: &str) -> String {
        match read(url) {
            Err(OpenError::Url(message)) => message,
            other => panic!("{url} gives {other:?}"),
        }
    }

    #[test]
    fn memory_has_three_spellings() {
        for url in [":memory:", "sqlite://:memory:", "sqlite:///:memory:"] {
            assert_eq!(read(url).unwrap().target, Target::Memory, "{url}");
        }
    }

    #[test]
    fn a_plain_path_is_taken_as_it_is() {
        for path in ["runs.db", "/tmp/runs.db", "data/runs.db", "we?ird.db", "a b%20c.db", "C:\\runs.db"] {
            assert_eq!(file(path), path);
        }
    }

    #[test]
    fn two_slashes_are_followed_by_a_path() {
        assert_eq!(file("sqlite://runs.db"), "runs.db");
        assert_eq!(file("sqlite://data/runs.db"), "data/runs.db");
    }

    #[test]
    fn three_slashes_are_absolute_where_that_folder_exists() {
        assert_eq!(file("sqlite:///tmp/runs.db"), "/tmp/runs.db");
    }

    #[test]
    fn three_slashes_before_a_bare_name_are_relative() {
        assert_eq!(file("sqlite:///app.db"), "app.db");
    }

    #[test]
    fn three_slashes_are_relative_where_only_that_folder_exists() {
        assert_eq!(file("sqlite:///data/app.db"), "data/app.db");
        assert_eq!(file("sqlite:///./app.db"), "./app.db");
        assert_eq!(file("sqlite:///../app.db"), "../app.db");
    }

    #[test]
    fn three_slashes_are_absolute_where_no_folder_exists() {
        assert_eq!(file("sqlite:///missing/app.db"), "/missing/app.db");
    }

    #[test]
    fn four_slashes_are_absolute() {
        assert_eq!(file("sqlite:////data/app.db"), "/data/app.db");
        assert_eq!(file("sqlite:////app.db"), "/app.db");
    }

    #[test]
    fn durability_is_full_unless_said_otherwise() {
        assert_eq!(read("runs.db").unwrap().durability, Durability::Full);
        for url in [
            "runs.db?durability=normal",
            "sqlite://runs.db?durability=normal",
            ":memory:?durability=normal",
            "sqlite:///tmp/runs.db?durability=normal",
        ] {
            assert_eq!(read(url).unwrap().durability, Durability::Normal, "{url}");
        }
        assert_eq!(file("runs.db?durability=normal"), "runs.db");
    }

    #[test]
    fn durability_may_stand_beside_the_url() {
        let parse = |url: &str, durability| parse(OsStr::new(url), durability);
        assert_eq!(parse("runs.db", Some("normal")).unwrap().durability, Durability::Normal);
        assert_eq!(parse("runs.db?durability=full", Some("full")).unwrap().durability, Durability::Full);
        assert!(matches!(parse("runs.db?durability=full", Some("normal")), Err(OpenError::Url(_))));
        assert!(matches!(parse("runs.db", Some("Full")), Err(OpenError::Url(_))));
    }

    #[test]
    fn an_unknown_option_or_value_is_refused_with_the_valid_ones() {
        assert!(refusal("runs.db?mode=ro").contains("'durability'"));
        assert!(refusal("sqlite://runs.db?mode").contains("'durability'"));
        let message = refusal("sqlite://runs.db?durability=some");
        assert!(message.contains("'some'") && message.contains("'full'") && message.contains("'normal'"));
        assert!(refusal("runs.db?durability=full&durability=normal").contains("twice"));
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for url in ["", "sqlite://", "sqlite:///", "sqlite://?durability=full", "a\0b.db"] {
            refusal(url);
        }
    }

    #[test]
    fn what_is_meant_for_a_server_is_no_file_and_is_not_shown() {
        for url in [
            "\"postgresql://ann:hunter2@h/app\"",
            " postgresql://ann:hunter2@h/app",
            "postgresql:/ann:hunter2@h/app",
            "jdbc:postgresql:app?user=ann&pass=hunter2",
            "DATABASE_URL=postgresql://ann:hunter2@h/app",
            "sqlite:///postgresql://ann:hunter2@h/app",
            "host=h password=hunter2 user=ann dbname=app",
            "postgresql://ann:hunter2@h/app\n",
            "postgresql:ann:hunter2@h",
            "postgresql//ann:hunter2@h/app",
            "postgresql:\\\\ann:hunter2@h/app",
            "Postgres:ann:hunter2",
            "ann:hunter2@127.0.0.1:5432/app",
            "//ann:hunter2@h/app",
            "ann:hunter2/3@h/app",
            "sqlite://ann:hunter2@h/x.db",
            "sqlite:///ann:hunter2@h/x.db",
        ] {
            let Err(OpenError::Url(text)) = super::parse(url.as_ref(), None) else {
                panic!("{url} is taken for a store")
            };
            assert!(!text.contains("hunter2") && text.contains("remove it") | text.contains(FORMS), "{text}");
        }
        for path in ["runs:/a.db", "./a:b@c.db", "/data/a:b@c.db", "a@b:c.db", "C:\\data\\a@b.db"] {
            assert!(super::parse(path.as_ref(), None).is_ok(), "{path}");
        }
    }

    #[test]
    fn other_schemes_are_refused_with_the_accepted_forms() {
        for url in ["mysql://root:secret@host/db", "file:///tmp/x.db", "file:runs.db", "sqlite:runs.db"] {
            let message = refusal(url);
            assert!(message.contains("sqlite://PATH") && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn a_server_has_its_own_words_and_the_options_of_every_store() {
        for url in ["postgres://me:secret@host/db", "postgresql+psycopg://me@host:5432/db?durability=full"] {
            let Target::Server(address) = read(url).unwrap().target else { panic!("{url} is no server") };
            assert_eq!(address.name, "db at host:5432", "{url}");
        }
        let normal = parse(OsStr::new("postgresql://h/d"), Some("normal")).unwrap();
        assert_eq!(normal.durability, Durability::Normal);
        let twice = parse(OsStr::new("postgresql://h/d?durability=full"), Some("normal"));
        assert!(matches!(twice, Err(OpenError::Url(_))));
        assert!(refusal("postgresql://me:secret@h/d?mode=ro").contains("sslmode"));
    }
}
