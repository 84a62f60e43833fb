//! The location of Debian's archive: the mirror of the machine's own apt, which is known to be reachable.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Suite;
use super::command::run;

/// The environment variable with the mirror to use instead of the machine's own, `http://host/debian`. The
/// security archive is expected next to it, at `http://host/debian-security`.
pub const OVERRIDE: &str = "TRACER_DEBIAN_MIRROR";

const CODENAMES: [&str; 13] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "experimental",
    "rc-buggy",
];

/// The two halves of Debian's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    main: String,
    security: String,
}

impl Mirror {
    /// The mirror from [`OVERRIDE`], otherwise that of the machine's apt sources.
    pub(super) fn find() -> Result<Self> {
        if let Ok(main) = env::var(OVERRIDE) {
            return Ok(Self::beside(main.trim_end_matches('/')));
        }
        let listed = run(Command::new("apt-get").args(["--print-uris", "update"]))
            .context("cannot read the machine's apt sources")?;
        from_uris(&listed).with_context(|| {
            format!("the machine's apt sources have no Debian mirror; set {OVERRIDE}=http://HOST/debian")
        })
    }

    pub(super) fn beside(main: &str) -> Self {
        Self {
            main: main.to_owned(),
            security: format!("{main}-security"),
        }
    }

    /// The archive of this suite.
    pub(super) fn of(&self, suite: Suite) -> &str {
        if suite.is_security() {
            &self.security
        } else {
            &self.main
        }
    }
}

/// Finds the mirror in the output of `apt-get --print-uris update`.
fn from_uris(listed: &str) -> Option<Mirror> {
    let suites: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once('\''))
        .filter_map(|(uri, _)| uri.split_once("/dists/"))
        .filter_map(|(archive, rest)| Some((archive, rest.strip_suffix("/InRelease")?)))
        .collect();
    let archive_with = |wanted: &dyn Fn(&str) -> bool| {
        suites
            .iter()
            .find(|(_, suite)| wanted(suite))
            .map(|(archive, _)| (*archive).to_owned())
    };
    // Other projects name their suites after Debian's releases too, but none has an -updates suite.
    let main = archive_with(&|suite| {
        suite
            .strip_suffix("-updates")
            .is_some_and(|codename| CODENAMES.contains(&codename))
    })
    .or_else(|| archive_with(&|suite| CODENAMES.contains(&suite)));
    let security = archive_with(&|suite| {
        suite
            .strip_suffix("-security")
            .is_some_and(|codename| CODENAMES.contains(&codename))
    });
    match (main, security) {
        (Some(main), Some(security)) => Some(Mirror { main, security }),
        (Some(main), None) => Some(Mirror::beside(&main)),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debian_and_not_a_project_that_borrows_its_names() {
        let listed = "\
'https://vendor.example/linux/debian/dists/bookworm/InRelease' vendor 0 
'http://mirror.example/debian/dists/bookworm/InRelease' a 0 
'http://mirror.example/debian/dists/bookworm-updates/InRelease' b 0 
'http://secure.example/debian-security/dists/bookworm-security/InRelease' c 0 
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' d 0 
";
        let mirror = from_uris(listed).unwrap();
        assert_eq!(mirror.of(Suite::TRIXIE_BACKPORTS), "http://mirror.example/debian");
        assert_eq!(
            mirror.of(Suite::BOOKWORM_SECURITY),
            "http://secure.example/debian-security"
        );
    }

    #[test]
    fn security_is_beside_main_and_other_distributions_are_rejected() {
        let mirror = from_uris("'http://m.example/debian/dists/sid/InRelease' a 0 \n").unwrap();
        assert_eq!(
            mirror.of(Suite::BOOKWORM_SECURITY),
            "http://m.example/debian-security"
        );
        assert!(from_uris("'http://m.example/ubuntu/dists/noble/InRelease' a 0 \n").is_none());
    }
}
