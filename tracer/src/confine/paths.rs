//! Landlock: which files the calling thread can still open, create or remove. Open files stay open.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// What is restricted. A newer ABI would also take the ioctls of the terminal away, which the screen needs.
const RESTRICTED: ABI = ABI::V4;

/// A file or a folder with everything below, and what may be done there.
pub(super) struct Allowed<'a> {
    pub(super) path: &'a Path,
    pub(super) access: BitFlags<AccessFs>,
}

impl<'a> Allowed<'a> {
    /// New files may be created and written in this folder.
    pub(super) fn new_files(path: &'a Path) -> Self {
        Self {
            path,
            access: AccessFs::MakeReg | AccessFs::WriteFile,
        }
    }

    /// Files may be renamed and removed in this folder.
    pub(super) fn names(path: &'a Path) -> Self {
        Self {
            path,
            access: AccessFs::MakeReg | AccessFs::RemoveFile,
        }
    }

    /// This device may be read and written.
    pub(super) fn device(path: &'a Path) -> Self {
        Self {
            path,
            access: AccessFs::ReadFile | AccessFs::WriteFile,
        }
    }
}

/// Restricts the calling thread to these files. Returns whether the kernel does so.
pub(super) fn restrict(allowed: &[Allowed<'_>]) -> Result<bool, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RESTRICTED))?
        .create()?;
    for Allowed { path, access } in allowed {
        // What does not exist cannot be opened anyway.
        if let Ok(path) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(path, *access))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
