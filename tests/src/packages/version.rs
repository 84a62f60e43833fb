//! Packages, and Debian's order of their versions.

use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// One version of one package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version, in Debian's order of versions.
    pub version: Version,
}

impl Package {
    /// `name=version`: the argument of [`unpack`] for exactly this version.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// A Debian version, `[epoch:]upstream[-revision]`, ordered as dpkg orders them (deb-version(7)).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version(String);

impl Version {
    /// Wraps a version as written.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The version as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Epoch, upstream version, revision.
    fn parts(&self) -> (u32, &str, &str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", &self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch.parse().unwrap_or(0), upstream, revision)
    }
}

impl Display for Version {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (epoch, upstream, revision) = self.parts();
        let (other_epoch, other_upstream, other_revision) = other.parts();
        epoch
            .cmp(&other_epoch)
            .then_with(|| compare(upstream, other_upstream))
            .then_with(|| compare(revision, other_revision))
    }
}

/// Compares, in turn, a run of non-digits by [`weight`] and a run of digits by value.
fn compare(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = split(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = split(b, |c| !c.is_ascii_digit());
        let length = text_a.len().max(text_b.len());
        let weights = |text: &str| {
            (0..length)
                .map(|i| weight(text.as_bytes().get(i)))
                .collect::<Vec<_>>()
        };
        let (digits_a, after_a) = split(rest_a, |c| c.is_ascii_digit());
        let (digits_b, after_b) = split(rest_b, |c| c.is_ascii_digit());
        let order = weights(text_a).cmp(&weights(text_b)).then_with(|| {
            let (a, b) = (digits_a.trim_start_matches('0'), digits_b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        });
        if order.is_ne() {
            return order;
        }
        (a, b) = (after_a, after_b);
    }
    Ordering::Equal
}

/// `~` sorts before the end of the text, the end before letters, and letters before everything else.
fn weight(byte: Option<&u8>) -> u32 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => 2 + u32::from(*letter),
        Some(other) => 1000 + u32::from(*other),
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_as_in_dpkg() {
        // Each is older than the next; `dpkg --compare-versions` agrees for every pair.
        let ascending = [
            "5.10.9-1",
            "5.10.84~rc1-1",
            "5.10.84-1",
            "5.10.84-1+deb11u1",
            "5.10.223-1",
            "6.12.43-1~bpo12+1",
            "6.12.43-1",
            "6.12.43a-1",
            "6.12.43+1-1",
            "7.3.4-1~bpo13+1",
            "7.3.4-1",
            "1:0.1-1",
        ];
        for pair in ascending.windows(2) {
            assert!(
                Version::new(pair[0]) < Version::new(pair[1]),
                "{} < {}",
                pair[0],
                pair[1]
            );
        }
        assert_eq!(Version::new("1.02-1"), Version::new("0:1.2-1"));
        assert_eq!(Version::new("1.2"), Version::new("1.2-0"));
    }
}
