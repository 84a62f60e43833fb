//! Source packages.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::{Kind, Root, run};
use crate::packages::progress::Progress;
use crate::packages::{Cache, Package, Suite, Version};

/// The upstream part of a source package: `NAME_VERSION.orig.tar.gz`.
#[derive(Debug, PartialEq, Eq)]
struct Upstream {
    package: Package,
    file: String,
    size: u64,
}

impl Root {
    /// Sets up a root that knows the source packages of a suite.
    pub(in crate::packages) fn open_sources(cache: &Cache, suite: Suite) -> Result<Self> {
        Self::open_kind(cache, &[suite], &[], Kind::Sources)
    }

    /// Fetches the upstream part of the newest version of a source package, and returns its path. apt verifies
    /// it before it gives it its name.
    pub(in crate::packages) fn download_upstream(&self, package: &str) -> Result<PathBuf> {
        self.try_download_upstream(package).or_else(|error| {
            // Debian removes a version when a newer one replaces it: the lists may be outdated.
            eprintln!("{error:#}\nretrying with updated package lists");
            self.update()?;
            self.try_download_upstream(package)
        })
    }

    fn try_download_upstream(&self, package: &str) -> Result<PathBuf> {
        let listed = run(self
            .command("apt-cache")
            .args(["showsrc", "--only-source", package]))?;
        let newest = parse_upstream(&listed)
            .into_iter()
            .max_by(|a, b| a.package.version.cmp(&b.package.version))
            .with_context(|| format!("apt knows no source of {package}"))?;
        let path = self.archives.join(&newest.file);
        if path.exists() {
            return Ok(path);
        }
        let megabytes = newest.size.div_ceil(1_000_000);
        let progress = Progress::percent(&format!("fetching {}, {megabytes} MB", newest.file));
        let mut command = self.command("apt-get");
        command
            .args(["source", "--download-only", "--only-source", "--tar-only"])
            .arg(newest.package.pinned())
            .current_dir(&self.archives);
        self.run_with_progress(&mut command, &progress)?;
        ensure!(path.exists(), "apt did not fetch {}", newest.file);
        Ok(path)
    }
}

/// Whether this is `NAME_VERSION.orig.tar.gz`, and not its signature.
fn is_upstream(file: &str) -> bool {
    file.split_once(".orig.tar.")
        .is_some_and(|(_, compression)| !compression.contains('.'))
}

/// Reads each paragraph of `apt-cache showsrc`.
fn parse_upstream(text: &str) -> Vec<Upstream> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| {
                let mut lines = paragraph.lines();
                lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let (name, version) = (field("Package")?, field("Version")?);
            // ` hash size file`, one line per file.
            let files = paragraph
                .lines()
                .skip_while(|line| !line.starts_with("Checksums-Sha256:"))
                .skip(1)
                .take_while(|line| line.starts_with(' '));
            let (size, file) = files
                .filter_map(|line| line.trim().split_once(' ')?.1.split_once(' '))
                .find(|(_, file)| is_upstream(file))?;
            Some(Upstream {
                package: Package {
                    name: name.to_owned(),
                    version: Version::new(version),
                },
                file: file.to_owned(),
                size: size.parse().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_part_is_found_among_the_files_of_a_source_package() {
        let listed = "\
Package: kubernetes
Binary: kubernetes-client
Version: 1.20.5+really1.20.2-1.1+deb12u1
Files:
 0ff1 1973 kubernetes_1.20.5+really1.20.2-1.1+deb12u1.dsc
 20b9 34428927 kubernetes_1.20.5+really1.20.2.orig.tar.gz
Checksums-Sha256:
 19fa 1973 kubernetes_1.20.5+really1.20.2-1.1+deb12u1.dsc
 77aa 833 kubernetes_1.20.5+really1.20.2.orig.tar.gz.asc
 b83c 34428927 kubernetes_1.20.5+really1.20.2.orig.tar.gz
 9b6e 21300 kubernetes_1.20.5+really1.20.2-1.1+deb12u1.debian.tar.xz
Section: misc

";
        let found = parse_upstream(listed);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].file, "kubernetes_1.20.5+really1.20.2.orig.tar.gz");
        assert_eq!(found[0].size, 34_428_927);
        assert_eq!(
            found[0].package.pinned(),
            "kubernetes=1.20.5+really1.20.2-1.1+deb12u1"
        );
    }
}
