//! Databases of a real PostgreSQL server, which `tests/postgres.py` starts for all who test in this worktree and removes after the last of them.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

/// A database of this test's own, deleted at its end.
pub struct Database(String);

impl Database {
    /// None, which is told, where no server can be had; that fails where one is to be had for sure.
    pub fn new() -> Option<Self> {
        let url = Server::ask("new");
        if url.is_none() {
            let required = env::var("CLOACA_POSTGRES").is_ok_and(|word| word == "required");
            assert!(!required, "there is no PostgreSQL server to test with");
            eprintln!("skipped: there is no PostgreSQL server to test with");
        }
        url.map(Self)
    }

    pub fn url(&self) -> &str {
        &self.0
    }

    /// The same through a way of one's own, which leads to [`Database::socket`].
    pub fn url_by(&self, port: u16) -> String {
        let (before, _) = self.0.split_once('?').expect("it names a folder");
        format!("{}?host=127.0.0.1&port={port}&sslmode=disable", before)
    }

    /// Where its server listens.
    pub fn socket(&self) -> PathBuf {
        let word = |name: &str| {
            let (_, rest) = self.0.split_once(name).expect("it names folder and port");
            rest.split('&').next().unwrap_or_default().to_owned()
        };
        PathBuf::from(word("host=")).join(format!(".s.PGSQL.{}", word("port=")))
    }

    /// Ends every connection to it.
    pub fn cut(&self) {
        Server::ask(&format!("cut {}", self.0));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        Server::ask(&format!("drop {}", self.0));
    }
}

/// The program that makes databases; it deletes what is left of them when this process ends.
struct Server {
    child: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

static SERVER: LazyLock<Mutex<Option<Server>>> = LazyLock::new(|| Mutex::new(Server::start()));

impl Server {
    fn start() -> Option<Self> {
        let python = env::var_os("PYO3_PYTHON").unwrap_or_else(|| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/postgres.py");
        let mut serve = Command::new(python);
        serve.args([script, "serve"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = serve.spawn().ok()?;
        let (asked, told) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        Some(Self { child, asked, told })
    }

    /// The answer to a line; none where there is no server.
    fn ask(line: &str) -> Option<String> {
        let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        let Self { child, asked, told } = server.as_mut()?;
        let mut answer = String::new();
        let sent = writeln!(asked, "{line}").and_then(|()| told.read_line(&mut answer));
        if matches!(sent, Ok(1..)) {
            return Some(answer.trim_end().to_owned());
        }
        let end = child.wait().expect("it was started here");
        *server = None;
        assert_eq!(end.code(), Some(MISSING), "tests/postgres.py has failed");
        None
    }
}

/// How `tests/postgres.py` ends where there is no server.
const MISSING: i32 = 3;
