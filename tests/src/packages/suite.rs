//! Suites of Debian's archive.

/// A suite of Debian's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite(&'static str);

impl Suite {
    /// Debian 11.
    pub const BULLSEYE: Self = Self("bullseye");
    /// Security updates of Debian 11.
    pub const BULLSEYE_SECURITY: Self = Self("bullseye-security");
    /// Debian 12.
    pub const BOOKWORM: Self = Self("bookworm");
    /// Security updates of Debian 12.
    pub const BOOKWORM_SECURITY: Self = Self("bookworm-security");
    /// Newer packages rebuilt for Debian 12.
    pub const BOOKWORM_BACKPORTS: Self = Self("bookworm-backports");
    /// Debian 13.
    pub const TRIXIE: Self = Self("trixie");
    /// Security updates of Debian 13.
    pub const TRIXIE_SECURITY: Self = Self("trixie-security");
    /// Newer packages rebuilt for Debian 13.
    pub const TRIXIE_BACKPORTS: Self = Self("trixie-backports");

    /// Its name in a sources list.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Security updates have their own archive.
    pub(super) fn is_security(self) -> bool {
        self.0.ends_with("-security")
    }
}
