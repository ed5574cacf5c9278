//! Makes SQLite's locks in its `-shm` file belong to that open file and not to the process.
//!
//! SQLite asks for POSIX locks, all of which any `close` of the file in the process takes away, whoever made the descriptor: a second SQLite
//! that lets go of the file (`ATTACH`), or a copy of the folder. Amidst a transaction that was the lock of the writer, and an outsider that
//! wrote then damaged the file. A process has one descriptor of a `-shm` file for all its connections, so that a lock of the open file
//! means there what SQLite takes its lock for. The locks of the database itself stay as they are: those are taken on several descriptors.
//! Invariant: SQLite is told of nothing that is not so; what isn't a lock in such a file goes to the system as it came.

use std::ffi::{c_int, c_void};
use std::fs;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use libsqlite3_sys::{SQLITE_OK, sqlite3_initialize, sqlite3_vfs_find};

/// Where SQLite locks in a `-shm` file (`UNIX_SHM_BASE` to `UNIX_SHM_DMS`); in a database it locks far behind.
const MEMORY: std::ops::RangeInclusive<libc::off_t> = 120..=128;
/// The byte that every process with an open `-shm` file holds.
const CONNECTED: libc::off_t = 128;

/// Descriptors of `-shm` files, for the children of this process; an entry may be of one that was closed since.
static DESCRIPTORS: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

/// Puts [`lock`] between SQLite and the system, before the first database is opened. Where that fails everything is as SQLite has it.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the name of the default VFS may be null; what is found lives as long as the process, and its methods are only called
        // with itself. The function that is put in has the C calling convention, and takes for the variable argument what fits in a
        // register, as the system's own does on Linux.
        unsafe {
            if sqlite3_initialize() != SQLITE_OK {
                return;
            }
            let vfs = sqlite3_vfs_find(std::ptr::null());
            let Some(replace) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) else { return };
            let function: unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int = lock;
            let function = std::mem::transmute::<
                unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int,
                unsafe extern "C" fn(),
            >(function);
            replace(vfs, c"fcntl".as_ptr(), Some(function));
        }
    });
}

/// `fcntl` as SQLite calls it.
unsafe extern "C" fn lock(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
    let of_file = match command {
        libc::F_SETLK => libc::F_OFD_SETLK,
        libc::F_GETLK => libc::F_OFD_GETLK,
        // SAFETY: as it came.
        _ => return unsafe { libc::fcntl(descriptor, command, argument) },
    };
    // SAFETY: with these commands SQLite gives a lock, which is its own until this returns.
    let Some(asked) = (unsafe { argument.cast::<libc::flock>().as_mut() }) else { return -1 };
    if !MEMORY.contains(&asked.l_start) {
        // SAFETY: as it came.
        return unsafe { libc::fcntl(descriptor, command, argument) };
    }
    if asked.l_start == CONNECTED && command == libc::F_SETLK {
        note(descriptor);
    }
    // The system wants it so for these commands.
    asked.l_pid = 0;
    // SAFETY: the lock lives until this returns.
    unsafe { libc::fcntl(descriptor, of_file, std::ptr::from_mut(asked)) }
}

fn note(descriptor: c_int) {
    if DESCRIPTORS.iter().any(|noted| noted.load(Ordering::Relaxed) == descriptor) {
        return;
    }
    for noted in &DESCRIPTORS {
        if noted.compare_exchange(-1, descriptor, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// Closes what a forked child has inherited of these files: it would hold its parent's locks beyond the parent's death. The child never
/// touches the connections that they belong to.
pub fn forked() {
    for noted in &DESCRIPTORS {
        let descriptor = noted.swap(-1, Ordering::Relaxed);
        let is_memory = descriptor >= 0
            && fs::read_link(format!("/proc/self/fd/{descriptor}"))
                .is_ok_and(|path| path.as_os_str().as_encoded_bytes().ends_with(b"-shm"));
        if is_memory {
            // SAFETY: nothing in this process uses that descriptor.
            unsafe { libc::close(descriptor) };
        }
    }
}
