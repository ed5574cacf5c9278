//! The way from a store to its server, which counts what is asked and loses what it is told to lose. Invariant: a loss ends the connection on both sides, as a cut cable or a dead
//! server does, and is known before the store hears of it.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What goes missing of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It does not arrive.
    Question,
    /// It is made, and nobody is told.
    Answer,
}

/// A port of loopback that leads to a socket.
pub struct Way {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    wanted: Option<Loss>,
    has_lost: bool,
    is_closed: bool,
    /// How many statements were asked in the transaction of which that was most.
    statements_max: usize,
}

impl Way {
    pub fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Arc<Mutex<State>> = Arc::default();
        let kept = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if locked(&state).is_closed {
                    continue;
                }
                // The server may be down.
                if let Ok(server) = UnixStream::connect(&socket) {
                    carry(client, server, &state);
                }
            }
        });
        Self { port, state: kept }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next commit is lost.
    pub fn lose(&self, loss: Loss) {
        let mut state = locked(&self.state);
        (state.wanted, state.has_lost) = (Some(loss), false);
    }

    /// Nobody gets through any more who hasn't already.
    pub fn close(&self) {
        locked(&self.state).is_closed = true;
    }

    pub fn open(&self) {
        locked(&self.state).is_closed = false;
    }

    pub fn has_lost(&self) -> bool {
        locked(&self.state).has_lost
    }

    /// How many statements the transaction had that had most since this was asked last.
    pub fn statements_max(&self) -> usize {
        std::mem::take(&mut locked(&self.state).statements_max)
    }
}

/// Counts the statements of the transactions on a connection, by the letters that its messages begin with.
#[derive(Default)]
struct Counter {
    /// What has come of the next message.
    begun: Vec<u8>,
    has_greeted: bool,
    count: usize,
}

impl Counter {
    /// How many statements the transaction has that is on its way.
    fn count(&mut self, bytes: &[u8]) -> usize {
        self.begun.extend_from_slice(bytes);
        let mut most = 0;
        loop {
            // The first message has a length and no letter.
            let letter = usize::from(self.has_greeted);
            let Some(length) = self.begun.get(letter..letter + 4) else { return most };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + letter;
            if self.begun.len() < length {
                return most;
            }
            let message: Vec<u8> = self.begun.drain(..length).collect();
            match message[0] {
                b'Q' if holds(&message, b"BEGIN") => self.count = 0,
                b'E' if self.has_greeted => self.count += 1,
                _ => {}
            }
            self.has_greeted = true;
            most = most.max(self.count);
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the answer to a commit of this connection is to be lost.
type Deaf = Arc<Mutex<bool>>;

fn carry(client: TcpStream, server: UnixStream, state: &Arc<Mutex<State>>) {
    let _ = client.set_nodelay(true);
    let deaf = Deaf::default();
    let (asking, answering) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (state, hears) = (Arc::clone(state), Arc::clone(&deaf));
    thread::spawn(move || {
        ask(asking, answering, &state, &hears);
    });
    thread::spawn(move || answer(server, client, &deaf));
}

fn ask(mut client: TcpStream, mut server: UnixStream, state: &Mutex<State>, deaf: &Mutex<bool>) {
    let mut bytes = [0; 1 << 16];
    let mut counter = Counter::default();
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let bytes = &bytes[..length];
        let count = counter.count(bytes);
        {
            let mut state = locked(state);
            state.statements_max = state.statements_max.max(count);
        }
        if holds(bytes, b"COMMIT\0") {
            let mut state = locked(state);
            match state.wanted.take() {
                Some(Loss::Question) => {
                    state.has_lost = true;
                    break;
                }
                Some(Loss::Answer) => {
                    state.has_lost = true;
                    *deaf.lock().unwrap_or_else(PoisonError::into_inner) = true;
                }
                None => {}
            }
        }
        if server.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn answer(mut server: UnixStream, mut client: TcpStream, deaf: &Mutex<bool>) {
    let mut bytes = [0; 1 << 16];
    let mut unheard = Vec::new();
    while let Ok(length @ 1..) = server.read(&mut bytes) {
        if *deaf.lock().unwrap_or_else(PoisonError::into_inner) {
            // Made, once the server says so.
            unheard.extend_from_slice(&bytes[..length]);
            if holds(&unheard, b"COMMIT\0") {
                break;
            }
        } else if client.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}
