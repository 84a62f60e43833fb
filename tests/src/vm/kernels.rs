//! The lab's kernels: Debian's own, by their short names.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::ipvs_flavour;
use crate::packages::{Cache, Dependencies, LISTS_AGE, Package, Suite, available, newest, unpack};

/// Debian's kernel builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// For virtual machines: small, with everything the lab needs.
    #[default]
    Cloud,
    /// For all machines.
    Generic,
    /// With `PREEMPT_RT`: softirqs run in threads, and spin locks sleep.
    Realtime,
}

impl Build {
    /// The suffix of the kernel's release name.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "cloud-amd64",
            Self::Generic => "amd64",
            Self::Realtime => "rt-amd64",
        }
    }
}

impl FromStr for Build {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cloud" => Ok(Self::Cloud),
            "generic" => Ok(Self::Generic),
            "rt" => Ok(Self::Realtime),
            _ => Err(anyhow!(
                "unknown kernel build {text}; the builds are cloud, generic, rt"
            )),
        }
    }
}

impl Display for Build {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cloud => "cloud",
            Self::Generic => "generic",
            Self::Realtime => "rt",
        })
    }
}

/// A kernel series, and the suites with its newest release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    name: &'static str,
    suites: &'static [Suite],
}

/// Every series that the lab knows, oldest first.
pub const SERIES: [Series; 5] = [
    Series {
        name: "5.10",
        suites: &[Suite::BULLSEYE, Suite::BULLSEYE_SECURITY],
    },
    Series {
        name: "6.1",
        suites: &[Suite::BOOKWORM, Suite::BOOKWORM_SECURITY],
    },
    Series {
        name: "6.12",
        suites: &[Suite::TRIXIE, Suite::TRIXIE_SECURITY],
    },
    Series {
        name: "6.18",
        suites: &[Suite::TRIXIE_BACKPORTS],
    },
    Series {
        name: "7",
        suites: &[Suite::TRIXIE_BACKPORTS],
    },
];

impl Series {
    /// The short name: `6.12`; `7` is the newest 7.x.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The regular expression that matches the series' image packages. Release names have a hyphen before the
    /// build, and older ones another before the ABI number.
    fn pattern(self, build: Build) -> String {
        format!(
            "linux-image-{}[.][^-]*(-[0-9]+)?-{}",
            self.name.replace('.', "[.]"),
            build.suffix()
        )
    }
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        SERIES
            .into_iter()
            .find(|series| series.name == text)
            .ok_or_else(|| {
                let known: Vec<_> = SERIES.iter().map(|series| series.name).collect();
                anyhow!("unknown kernel {text}; the kernels are {}", known.join(", "))
            })
    }
}

impl Display for Series {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// The IPVS of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipvs {
    /// The packaged one.
    #[default]
    Packaged,
    /// One that handles reused ports like kernels before 5.9; for 5.10 only.
    Pre59,
}

impl FromStr for Ipvs {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "packaged" => Ok(Self::Packaged),
            "pre-5.9" => Ok(Self::Pre59),
            _ => Err(anyhow!("unknown IPVS {text}; the choices are packaged, pre-5.9")),
        }
    }
}

impl Display for Ipvs {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Packaged => "packaged",
            Self::Pre59 => "pre-5.9",
        })
    }
}

/// A bootable kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name: `6.12`, or `5.10 with IPVS pre-5.9`.
    pub name: String,
    /// Its `uname -r`.
    pub release: String,
    /// The kernel image.
    pub vmlinuz: PathBuf,
    /// `lib/modules/RELEASE`.
    pub modules_dir: PathBuf,
    /// Modules that replace the packaged ones of the same name.
    pub overrides: Vec<(String, PathBuf)>,
}

impl Kernel {
    /// Finds the newest kernel of a series and puts it into the cache, with the requested IPVS.
    pub fn fetch(cache: &Cache, series: Series, build: Build, ipvs: Ipvs) -> Result<Self> {
        let (choice, kernel) = packaged(cache, series, build)
            .with_context(|| format!("cannot fetch the kernel {series} ({build} build) from Debian"))?;
        match ipvs {
            Ipvs::Packaged => Ok(kernel),
            Ipvs::Pre59 => with_old_ipvs(cache, series, kernel, &choice.image),
        }
    }
}

/// The kernel chosen for a series, and its packages.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Choice {
    image: Package,
    packages: Vec<Package>,
}

impl Choice {
    /// Chooses from Debian's current packages.
    fn make(cache: &Cache, series: Series, build: Build) -> Result<Self> {
        let image = newest(cache, series.suites, &series.pattern(build))?;
        let release = release(&image)?;
        let part = |part: &str| Package {
            name: format!("linux-{part}-{release}"),
            version: image.version.clone(),
        };
        // Since 7.0 the image package is empty and depends on two others.
        let (binary, modules) = (part("binary"), part("modules"));
        let split = available(cache, series.suites, &binary)?;
        let packages = if split {
            vec![binary, modules]
        } else {
            vec![image.clone()]
        };
        Ok(Self { image, packages })
    }

    /// The choice of the last days, if any: apt would take a while to make the same choice.
    fn cached(record: &Path) -> Option<Self> {
        let age = record.metadata().ok()?.modified().ok()?.elapsed().ok()?;
        if age > LISTS_AGE {
            return None;
        }
        toml::from_str(&fs::read_to_string(record).ok()?).ok()
    }

    fn store(&self, record: &Path) -> Result<()> {
        if let Some(folder) = record.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(record, toml::to_string(self)?)
            .with_context(|| format!("cannot write {}", record.display()))
    }

    fn unpack(&self, cache: &Cache, series: Series) -> Result<Kernel> {
        let release = release(&self.image)?.to_owned();
        let packages: Vec<String> = self.packages.iter().map(Package::pinned).collect();
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        let tree = unpack(cache, series.suites, &packages, Dependencies::None)?;
        let modules_dir = tree.root.join("usr/lib/modules").join(&release);
        let places = [
            tree.root.join("boot").join(format!("vmlinuz-{release}")),
            modules_dir.join("vmlinuz"),
        ];
        let vmlinuz = places
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("no kernel image in {}", tree.root.display()))?;
        ensure!(
            modules_dir.join("kernel").exists(),
            "no modules in {}",
            tree.root.display()
        );
        Ok(Kernel {
            name: series.name.to_owned(),
            release,
            vmlinuz,
            modules_dir,
            overrides: Vec::new(),
        })
    }
}

fn packaged(cache: &Cache, series: Series, build: Build) -> Result<(Choice, Kernel)> {
    let record = cache.root().join("kernels").join(match build {
        Build::Cloud => format!("{series}.toml"),
        _ => format!("{series}-{build}.toml"),
    });
    let cached = Choice::cached(&record);
    // The choice may have been removed from both the cache and Debian.
    if let Some(choice) = cached
        && let Ok(kernel) = choice.unpack(cache, series)
    {
        return Ok((choice, kernel));
    }
    let choice = Choice::make(cache, series, build)?;
    let kernel = choice.unpack(cache, series)?;
    choice.store(&record)?;
    Ok((choice, kernel))
}

fn with_old_ipvs(cache: &Cache, series: Series, kernel: Kernel, image: &Package) -> Result<Kernel> {
    ensure!(
        series.name == "5.10",
        "the pre-5.9 IPVS exists for kernel 5.10 only, not for {series}"
    );
    let module = ipvs_flavour::build(cache, series.suites, &kernel.release, &image.version)
        .context("cannot build the pre-5.9 IPVS")?;
    Ok(Kernel {
        name: format!("{series} with IPVS {}", Ipvs::Pre59),
        overrides: vec![("ip_vs".to_owned(), module)],
        ..kernel
    })
}

/// The kernel release in an image package's name.
fn release(image: &Package) -> Result<&str> {
    image
        .name
        .strip_prefix("linux-image-")
        .with_context(|| format!("{} is not a kernel image package", image.name))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::packages::Version;

    #[test]
    fn displayed_names_parse() {
        for series in SERIES {
            assert_eq!(series.to_string().parse::<Series>().unwrap(), series);
        }
        for build in [Build::Cloud, Build::Generic, Build::Realtime] {
            assert_eq!(build.to_string().parse::<Build>().unwrap(), build);
        }
        for ipvs in [Ipvs::Packaged, Ipvs::Pre59] {
            assert_eq!(ipvs.to_string().parse::<Ipvs>().unwrap(), ipvs);
        }
        let error = "4.19".parse::<Series>().unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.12"), "{error}");
    }

    #[test]
    fn dots_in_names_match_literally() {
        let series: Series = "6.1".parse().unwrap();
        // 6.12 does not belong to 6.1.
        assert_eq!(
            series.pattern(Build::Realtime),
            "linux-image-6[.]1[.][^-]*(-[0-9]+)?-rt-amd64"
        );
    }

    fn package(name: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: Version::new("7.3.4-1~bpo13+1"),
        }
    }

    #[test]
    fn a_choice_is_cached_for_some_days() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("kernels/7.toml");
        assert_eq!(Choice::cached(&record), None);
        let choice = Choice {
            image: package("linux-image-a"),
            packages: vec![package("linux-binary-a")],
        };
        choice.store(&record).unwrap();
        assert_eq!(Choice::cached(&record), Some(choice));
        let old = SystemTime::now() - LISTS_AGE - Duration::from_hours(1);
        fs::File::options()
            .write(true)
            .open(&record)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert_eq!(Choice::cached(&record), None);
    }

    #[test]
    fn the_release_is_in_the_name() {
        let image = package("linux-image-7.3.4+deb13-cloud-amd64");
        assert_eq!(release(&image).unwrap(), "7.3.4+deb13-cloud-amd64");
        release(&package("linux-modules-7.3.4+deb13-cloud-amd64")).unwrap_err();
    }
}
