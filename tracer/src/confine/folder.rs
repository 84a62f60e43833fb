//! Folders in which files are created or removed after confinement.
//!
//! root may write to other users' folders only with `CAP_DAC_OVERRIDE`. That capability is kept if such a folder is among
//! them, and only then.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{getegid, geteuid, getgroups};

const WRITE: u32 = 0o2;
const SEARCH: u32 = 0o1;

/// The folder of a file.
pub(super) fn of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether files can be created in this folder without `CAP_DAC_OVERRIDE`, by its mode and those of the folders above.
/// `false` where that cannot be told.
pub(super) fn is_open(folder: &Path) -> bool {
    let Ok(absolute) = fs::canonicalize(folder) else {
        return false;
    };
    let caller = Caller {
        user: geteuid().as_raw(),
        groups: getgroups()
            .unwrap_or_default()
            .into_iter()
            .chain([getegid()])
            .map(nix::unistd::Gid::as_raw)
            .collect(),
    };
    let mode = |path: &Path| fs::metadata(path).map_or(0, |it| caller.rights(it.uid(), it.gid(), it.mode()));
    let can_write = mode(&absolute) & (WRITE | SEARCH) == WRITE | SEARCH;
    can_write && absolute.ancestors().all(|above| mode(above) & SEARCH != 0)
}

struct Caller {
    user: u32,
    groups: Vec<u32>,
}

impl Caller {
    /// The three bits of a mode that apply (`fs/namei.c`, `acl_permission_check`).
    fn rights(&self, owner: u32, group: u32, mode: u32) -> u32 {
        let shift = if owner == self.user {
            6
        } else if self.groups.contains(&group) {
            3
        } else {
            0
        };
        mode >> shift & 0o7
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn the_mode_of_the_owner_the_group_or_others_applies() {
        let caller = Caller {
            user: 0,
            groups: vec![0, 5],
        };
        assert_eq!(caller.rights(0, 0, 0o750), 0o7);
        assert_eq!(caller.rights(1000, 5, 0o750), 0o5);
        assert_eq!(caller.rights(1000, 1000, 0o750), 0);
        // The owner's bits count for the owner, even if the group has more.
        assert_eq!(caller.rights(0, 0, 0o070), 0);
    }

    #[test]
    fn another_users_folder_is_closed_and_so_is_everything_below() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).expect("a folder");
        assert!(is_open(folder.path()) && is_open(&inner));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
        // Only root may give it away.
        if chown(folder.path(), Some(12_345), None).is_ok() {
            assert!(!is_open(folder.path()) && !is_open(&inner));
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
            assert!(!is_open(folder.path()) && is_open(&inner));
        }
        assert!(!is_open(Path::new("/nonexistent")));
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(of(Path::new("a.trace")), Path::new("."));
        assert_eq!(of(Path::new("/tmp/a.trace")), Path::new("/tmp"));
    }
}
