//! An open file whose locks stay as long as it is held here, also if the program closes its descriptor meanwhile.
//!
//! The locks of an open file (`F_OFD_SETLK`, fcntl(2)) go with the last that refers to it, and a mapping of it does so as its descriptor
//! does. Nobody reads or writes that mapping.
//! Invariant: no forked child has the mapping, since what lies on it would outlive the parent.

use std::fs::File;
use std::ops::Deref;

#[cfg(target_os = "linux")]
use memmap2::{Advice, MmapOptions, MmapRaw};

/// A file, and what keeps it open.
pub struct Anchored {
    file: File,
    #[cfg(target_os = "linux")]
    anchor: Option<MmapRaw>,
}

impl Anchored {
    /// Best effort: what cannot be mapped is kept by its descriptor alone.
    #[cfg(target_os = "linux")]
    pub fn new(file: File) -> Self {
        // One page at least, also of an empty file.
        let mapped = MmapOptions::new().len(1).map_raw_read_only(&file).ok();
        let anchor = mapped.filter(|mapping| mapping.advise(Advice::DontFork).is_ok());
        Self { file, anchor }
    }

    /// By its descriptor alone.
    #[cfg(not(target_os = "linux"))]
    pub fn new(file: File) -> Self {
        Self { file }
    }

    /// The descriptor alone.
    pub fn into_file(self) -> File {
        self.file
    }

    /// In a forked child: the mapping is the parent's, and something else may lie there by now.
    #[cfg(target_os = "linux")]
    pub fn inherited(self) -> File {
        std::mem::forget(self.anchor);
        self.file
    }

    /// In a forked child.
    #[cfg(not(target_os = "linux"))]
    pub fn inherited(self) -> File {
        self.file
    }
}

impl Deref for Anchored {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}
