//! Gives a whole file its name. Invariant: what has the name already keeps it.

use std::fs;
use std::io;
use std::path::Path;

/// Renames `from` to `to`, unless there is something of that name, also if it was made a moment ago.
///
/// # Errors
/// The system's: [`io::ErrorKind::AlreadyExists`] if the name is taken.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use nix::errno::Errno;
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // Some file systems don't know of it.
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            done => return done.map_err(io::Error::from),
        }
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Nor of this: who comes between the two lines loses his empty file.
        Err(_) => {
            fs::File::create_new(to)?;
            fs::rename(from, to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_stays() {
        let folder = std::env::temp_dir().join(format!("cloaca-rename-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::write(&from, "new").expect("it is written");
        fs::write(&to, "").expect("it is written");
        let refused = rename_to_new(&from, &to).expect_err("the name is taken");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&to).expect("it is there"), "");
        fs::remove_file(&to).expect("it is there");
        rename_to_new(&from, &to).expect("the name is free");
        assert_eq!(fs::read_to_string(&to).expect("it is there"), "new");
        assert!(!from.exists());
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
