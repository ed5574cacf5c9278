//! Makes SQLite's locks belong to an open file and not to the process, its `close` leave alone what others have locked, and all of it leave
//! alone what has got the number of a descriptor that the program closed behind SQLite's back, and what a parent had before a fork.
//!
//! SQLite asks for POSIX locks, all of which any `close` of the file in the process takes away, whoever made the descriptor: a second SQLite
//! that lets go of the file (`ATTACH`), a copy of the folder, and our own SQLite for that other one. Amidst a transaction that was the
//! lock of the writer, and an outsider that wrote then damaged the file. What is done instead is [`descriptors`]' to say.
//! Invariant: SQLite is told of nothing that is not so; what isn't a lock or a known file goes to the system as it came.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Once;

use crate::fork::generation;
use cloaca_store::descriptors::{self, Purpose};
use libsqlite3_sys::{SQLITE_OK, sqlite3_initialize, sqlite3_vfs, sqlite3_vfs_find};

type SystemCall = unsafe extern "C" fn();
type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
type Close = unsafe extern "C" fn(c_int) -> c_int;
type Lock = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
type Read = unsafe extern "C" fn(c_int, *mut c_void, usize, libc::off_t) -> isize;
type Write = unsafe extern "C" fn(c_int, *const c_void, usize, libc::off_t) -> isize;
type Status = unsafe extern "C" fn(c_int, *mut libc::stat) -> c_int;
type StatusAt = unsafe extern "C" fn(*const c_char, *mut libc::stat) -> c_int;
type Map = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, libc::off_t) -> *mut c_void;
type Truncate = unsafe extern "C" fn(c_int, libc::off_t) -> c_int;

/// No device has so large a number.
const GENERATION_AT: u32 = 40;

/// Puts this module between SQLite and the system, before the first database is opened. Where that fails everything is as SQLite has it.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the name of the default VFS may be null, and what is found lives as long as the process.
        let vfs = unsafe {
            if sqlite3_initialize() != SQLITE_OK {
                return;
            }
            sqlite3_vfs_find(std::ptr::null())
        };
        if vfs.is_null() {
            return;
        }
        // SAFETY: SQLite calls what stands by these names as it would call the functions that it replaces, which have these types; what
        // `lock` takes for the variable argument fits in a register, as the system's own does on Linux.
        unsafe {
            replace(vfs, c"open", std::mem::transmute::<Open, SystemCall>(open));
            replace(vfs, c"close", std::mem::transmute::<Close, SystemCall>(close));
            replace(vfs, c"fcntl", std::mem::transmute::<Lock, SystemCall>(lock));
            // It reads and writes by no others where there are these.
            replace(vfs, c"pread", std::mem::transmute::<Read, SystemCall>(read));
            replace(vfs, c"pwrite", std::mem::transmute::<Write, SystemCall>(write));
            replace(vfs, c"fstat", std::mem::transmute::<Status, SystemCall>(status));
            replace(vfs, c"stat", std::mem::transmute::<StatusAt, SystemCall>(status_at));
            replace(vfs, c"mmap", std::mem::transmute::<Map, SystemCall>(map));
            replace(vfs, c"ftruncate", std::mem::transmute::<Truncate, SystemCall>(truncate));
        }
    });
}

/// # Safety
/// `vfs` is a VFS of SQLite, and `call` has the type of the system call of that name.
unsafe fn replace(vfs: *mut sqlite3_vfs, name: &CStr, call: SystemCall) {
    // SAFETY: its methods are only called with itself.
    unsafe {
        if let Some(replace) = (*vfs).xSetSystemCall {
            replace(vfs, name.as_ptr(), Some(call));
        }
    }
}

/// `open` as SQLite calls it.
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: SQLite gives the path as a C string, which is its own until this returns.
    let name = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    let is_kept_free = flags & libc::O_CREAT != 0 && descriptors::is_kept_free(name);
    let flags = if is_kept_free { flags & !libc::O_CREAT } else { flags };
    let kept = descriptors::kept(name, flags, Purpose::Theirs).map(OwnedFd::into_raw_fd);
    // SAFETY: as it came, or to make no file.
    let descriptor = kept.unwrap_or_else(|| unsafe { libc::open(path, flags, mode) });
    if descriptor < 0 {
        return descriptor;
    }
    // SAFETY: nobody else has it yet.
    match descriptors::opened(unsafe { OwnedFd::from_raw_fd(descriptor) }) {
        Ok(descriptor) => descriptor.into_raw_fd(),
        Err(error) => {
            // SAFETY: the place of this thread's error is always there.
            unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EIO) };
            -1
        }
    }
}

/// A device as SQLite is to know it. What it knows of a file is by device and inode; in a forked child that would be what the parent had of
/// it, with its descriptors, its counts of locks and its memory, so there each file is another one.
fn in_this_process(device: libc::dev_t) -> libc::dev_t {
    device ^ (generation() as libc::dev_t) << GENERATION_AT
}

/// `fstat` as SQLite calls it.
unsafe extern "C" fn status(descriptor: c_int, into: *mut libc::stat) -> c_int {
    // SAFETY: as it came; it is filled where this returns 0.
    let found = unsafe { if libc::fstat(descriptor, into) == 0 { into.as_mut() } else { None } };
    if !descriptors::is_still(descriptor, found.as_ref().map(|found| (found.st_dev, found.st_ino))) {
        refused();
        return -1;
    }
    let Some(found) = found else { return -1 };
    found.st_dev = in_this_process(found.st_dev);
    0
}

/// `stat` as SQLite calls it.
unsafe extern "C" fn status_at(path: *const c_char, into: *mut libc::stat) -> c_int {
    // SAFETY: as it came; it is filled where this returns 0.
    unsafe {
        let done = libc::stat(path, into);
        if done == 0 {
            (*into).st_dev = in_this_process((*into).st_dev);
        }
        done
    }
}

/// `mmap` as SQLite calls it.
unsafe extern "C" fn map(
    at: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    descriptor: c_int,
    from: libc::off_t,
) -> *mut c_void {
    if !is_its_own(descriptor) {
        refused();
        return libc::MAP_FAILED;
    }
    // SAFETY: as it came.
    unsafe { libc::mmap(at, bytes, protection, flags, descriptor, from) }
}

/// Whether what SQLite opened still has that descriptor: a program may close what is not its own, and its next file gets the number.
fn is_its_own(descriptor: c_int) -> bool {
    let mut found = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the system fills it where it returns 0.
    let now = unsafe {
        (libc::fstat(descriptor, found.as_mut_ptr()) == 0).then(|| {
            let found = found.assume_init();
            (found.st_dev, found.st_ino)
        })
    };
    descriptors::is_still(descriptor, now)
}

fn refused() {
    // SAFETY: the place of this thread's error is always there.
    unsafe { *libc::__errno_location() = libc::EBADF };
}

/// `pread` as SQLite calls it.
unsafe extern "C" fn read(descriptor: c_int, into: *mut c_void, bytes: usize, at: libc::off_t) -> isize {
    if !is_its_own(descriptor) {
        refused();
        return -1;
    }
    // SAFETY: as it came.
    unsafe { libc::pread(descriptor, into, bytes, at) }
}

/// `pwrite` as SQLite calls it.
unsafe extern "C" fn write(descriptor: c_int, from: *const c_void, bytes: usize, at: libc::off_t) -> isize {
    if !is_its_own(descriptor) {
        refused();
        return -1;
    }
    // SAFETY: as it came.
    unsafe { libc::pwrite(descriptor, from, bytes, at) }
}

/// `ftruncate` as SQLite calls it.
unsafe extern "C" fn truncate(descriptor: c_int, bytes: libc::off_t) -> c_int {
    if !is_its_own(descriptor) {
        refused();
        return -1;
    }
    // SAFETY: as it came.
    unsafe { libc::ftruncate(descriptor, bytes) }
}

/// `close` as SQLite calls it.
unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    if !is_its_own(descriptor) {
        descriptors::forgotten(descriptor);
        return 0;
    }
    // SAFETY: SQLite gives up what is its own.
    descriptors::closed(unsafe { OwnedFd::from_raw_fd(descriptor) });
    0
}

/// `fcntl` as SQLite calls it.
unsafe extern "C" fn lock(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
    if command == libc::F_SETLK || command == libc::F_GETLK {
        // SAFETY: with these commands SQLite gives a lock, which is its own until this returns.
        let wanted = unsafe { argument.cast::<libc::flock>().as_mut() };
        match wanted.and_then(|wanted| descriptors::lock(descriptor, command == libc::F_GETLK, wanted)) {
            Some(Ok(())) => return 0,
            Some(Err(error)) => {
                // SAFETY: the place of this thread's error is always there.
                unsafe { *libc::__errno_location() = error as c_int };
                return -1;
            }
            None => {}
        }
    }
    // SAFETY: as it came.
    unsafe { libc::fcntl(descriptor, command, argument) }
}
