//! Tells on what kind of file system a file lies, and whether it is mounted by itself. Invariant: what cannot be told is taken for a local disk.

use std::fs;
use std::path::{Path, PathBuf};

/// File systems on which SQLite's locks or its shared memory cannot be relied upon.
const NETWORK_TYPES: [&str; 28] = [
    "nfs",
    "nfs3",
    "nfs4",
    "cifs",
    "smb",
    "smb2",
    "smb3",
    "smbfs",
    "smbnetfs",
    "sshfs",
    "ncpfs",
    "ncp",
    "afs",
    "coda",
    "ceph",
    "cephfs",
    "lustre",
    "glusterfs",
    "beegfs",
    "davfs",
    "davfs2",
    "webdav",
    "s3fs",
    "gcsfuse",
    "rclone",
    "goofys",
    "mountpoint-s3",
    "curlftpfs",
];

/// What is mounted, and where a file lies in that; none where it cannot be told.
pub struct Mounts {
    mountinfo: String,
    path: PathBuf,
}

impl Mounts {
    /// Those around `path`.
    pub fn of(path: &Path) -> Option<Self> {
        // Only Linux has this file; elsewhere the documentation has to do.
        let mounts = fs::read("/proc/self/mountinfo").ok()?;
        let mountinfo = String::from_utf8_lossy(&mounts).into_owned();
        Some(Self { mountinfo, path: path.canonicalize().ok()? })
    }

    /// The name of the network file system on which it lies; none if that is local or unknown.
    pub fn network_type(&self) -> Option<String> {
        let found = type_of(&self.mountinfo, &self.path)?;
        is_network(&found).then_some(found)
    }

    /// Whether it is a mount of its own: what is beside it in its folder is not beside it where it comes from.
    pub fn is_alone(&self) -> bool {
        self.mountinfo.lines().filter_map(mount).any(|(place, _)| place == self.path)
    }
}

fn is_network(name: &str) -> bool {
    let name = name.strip_prefix("fuse.").unwrap_or(name);
    NETWORK_TYPES.contains(&name.to_ascii_lowercase().as_str())
}

/// The type of the mount with the longest prefix of `path`; of several at one place, the last covers the others.
fn type_of(mountinfo: &str, path: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(mount);
    let above = mounts.filter(|(place, _)| path.starts_with(place));
    above.max_by_key(|(place, _)| place.components().count()).map(|(_, name)| name.to_owned())
}

/// Mount point and type: the fifth field, and the first one after a lone dash.
fn mount(line: &str) -> Option<(PathBuf, &str)> {
    let (left, right) = line.split_once(" - ")?;
    Some((unescape(left.split(' ').nth(4)?), right.split(' ').next()?))
}

/// Space, tab, newline and backslash stand as a backslash and three octal digits.
fn unescape(place: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(place.len());
    let mut rest = place.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = if first == b'\\' { after.get(..3).and_then(octal) } else { None };
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/share rw,relatime shared:2 - nfs4 server:/share rw
31 30 0:41 / /mnt/share/local\\040disk rw - xfs /dev/sdb1 rw
32 22 0:42 / /home/me/remote rw - fuse.sshfs me@host:/ rw
33 22 0:43 / /twice rw - ext4 /dev/sdc1 rw
34 22 0:44 / /twice rw - cifs //host/share rw
35 22 8:1 /srv/runs.db /data/runs.db rw,relatime - ext4 /dev/sda1 rw";

    fn type_at(path: &str) -> String {
        type_of(MOUNTS, Path::new(path)).unwrap()
    }

    #[test]
    fn the_longest_mount_decides() {
        assert_eq!(type_at("/var/runs.db"), "ext4");
        assert_eq!(type_at("/mnt/share/runs.db"), "nfs4");
        assert_eq!(type_at("/mnt/sharealike/runs.db"), "ext4");
        assert_eq!(type_at("/mnt/share/local disk/runs.db"), "xfs");
    }

    #[test]
    fn a_file_that_is_mounted_by_itself_is_told_from_one_in_a_mount() {
        let is_alone =
            |path: &str| Mounts { mountinfo: MOUNTS.to_owned(), path: PathBuf::from(path) }.is_alone();
        assert!(is_alone("/data/runs.db"));
        assert!(!is_alone("/data/other.db"));
        assert!(!is_alone("/mnt/share/runs.db"));
    }

    #[test]
    fn a_later_mount_covers_an_earlier_one() {
        assert_eq!(type_at("/twice/runs.db"), "cifs");
    }

    #[test]
    fn network_file_systems_are_known_by_name() {
        for name in ["nfs4", "cifs", "smb3", "fuse.sshfs", "ceph"] {
            assert!(is_network(name), "{name}");
        }
        for name in ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "9p", "fuse.ntfs-3g"] {
            assert!(!is_network(name), "{name}");
        }
    }
}
