//! Our own apt root, with separate sources and state: apt leaves the machine's own untouched.

mod source;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::command::run;
use super::mirror::Mirror;
use super::progress::Progress;
use super::{Cache, Package, Suite, Version};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists older than this are updated before the newest version of anything is chosen from them.
pub const LISTS_AGE: Duration = Duration::from_hours(7 * 24);

/// Settings of the machine's apt that ours needs to reach the network in the same way.
const NETWORK_SETTINGS: [&str; 6] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::socks::",
    "Acquire::ForceIPv",
    "Acquire::Retries",
    // Set on machines with an unreliable clock.
    "Acquire::Check-Date",
];

/// An apt that knows the given suites and treats only the `provided` packages as installed.
///
/// Its owner holds the cache's lock.
pub(super) struct Root {
    config: PathBuf,
    archives: PathBuf,
    suites: Vec<Suite>,
    sources: String,
    /// As old as the lists; its content is the sources they were fetched from.
    stamp: PathBuf,
}

/// A package file of the archive.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    package: Package,
    /// The file name that apt gives it.
    file: String,
    size: u64,
}

/// What an apt root offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Packages,
    Sources,
}

impl Kind {
    /// Its word in a sources list.
    const fn word(self) -> &'static str {
        match self {
            Self::Packages => "deb",
            Self::Sources => "deb-src",
        }
    }

    /// The start of the names of its files, which differ because their content does.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Packages => "",
            Self::Sources => "source+",
        }
    }
}

impl Root {
    /// Sets up the root, and updates the package lists if there are none or they are old.
    pub(super) fn open(cache: &Cache, suites: &[Suite], provided: &[&str]) -> Result<Self> {
        Self::open_kind(cache, suites, provided, Kind::Packages)
    }

    fn open_kind(cache: &Cache, suites: &[Suite], provided: &[&str], kind: Kind) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, so apt cannot verify Debian's signatures; run: apt-get install debian-archive-keyring"
        );
        let apt = cache.root().join("apt");
        let root = apt.join(format!("{}{}", kind.prefix(), folder_name(suites, provided)));
        let (lists, archives) = (apt.join("lists"), apt.join("archives"));
        for folder in [lists.join("partial"), archives.join("partial"), root.clone()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let sources = sources(&Mirror::find()?, suites, kind);
        let stamp = lists.join(format!("fetched-{}{}", kind.prefix(), names(suites, "+")));
        // Lists from another mirror, or from an interrupted update, are unusable.
        let up_to_date = fs::read_to_string(&stamp).is_ok_and(|known| known == sources);
        fs::write(root.join("sources.list"), &sources)?;
        fs::write(root.join("status"), status(provided))?;
        let config = root.join("apt.conf");
        fs::write(&config, configuration(&root, &lists, &archives)?)?;
        let apt = Self {
            config,
            archives,
            suites: suites.to_vec(),
            sources,
            stamp,
        };
        if !up_to_date {
            apt.update()?;
        } else if apt.lists_are_old()
            && let Err(error) = apt.update()
        {
            eprintln!("using the old package lists: {error:#}");
        }
        Ok(apt)
    }

    fn lists_are_old(&self) -> bool {
        let age = || {
            SystemTime::now()
                .duration_since(self.stamp.metadata().ok()?.modified().ok()?)
                .ok()
        };
        age().is_some_and(|age| age > LISTS_AGE)
    }

    fn update(&self) -> Result<()> {
        let names = names(&self.suites, ", ");
        let progress = Progress::percent(&format!("fetching the package lists of Debian {names}"));
        self.run_with_progress(self.command("apt-get").arg("update"), &progress)
            .context("cannot fetch the package lists")?;
        fs::write(&self.stamp, &self.sources)?;
        Ok(())
    }

    /// Fetches packages, with their dependencies if requested, and returns the paths of their archives.
    pub(super) fn download(&self, packages: &[&str], with_dependencies: bool) -> Result<Vec<PathBuf>> {
        self.try_download(packages, with_dependencies).or_else(|error| {
            // Debian removes a version when a newer one replaces it: the lists may be outdated.
            eprintln!("{error:#}\nretrying with updated package lists");
            self.update()?;
            self.try_download(packages, with_dependencies)
        })
    }

    fn try_download(&self, packages: &[&str], with_dependencies: bool) -> Result<Vec<PathBuf>> {
        let wanted = if with_dependencies {
            let install = ["install", "--simulate", "--no-install-recommends"];
            parse_plan(&run(self.command("apt-get").args(install).args(packages))?)
        } else {
            packages.iter().map(|&package| package.to_owned()).collect()
        };
        ensure!(
            !wanted.is_empty(),
            "apt found nothing to fetch for {}",
            packages.join(" ")
        );
        let listed = run(self
            .command("apt-cache")
            .args(["show", "--no-all-versions"])
            .args(&wanted))?;
        let archives = parse_archives(&listed);
        ensure!(
            archives.len() == wanted.len(),
            "apt found only {} of {}",
            archives
                .iter()
                .map(|archive| archive.package.pinned())
                .collect::<Vec<_>>()
                .join(" "),
            wanted.join(" ")
        );
        self.fetch(&archives)?;
        Ok(archives
            .iter()
            .map(|archive| self.archives.join(&archive.file))
            .collect())
    }

    /// Fetches the missing archives: apt verifies each archive before it gives it its name.
    fn fetch(&self, archives: &[Archive]) -> Result<()> {
        let mut missing: Vec<&Archive> = archives
            .iter()
            .filter(|archive| !self.archives.join(&archive.file).exists())
            .collect();
        missing.sort_by_key(|archive| archive.size);
        let Some(largest) = missing.last() else {
            return Ok(());
        };
        let size: u64 = missing.iter().map(|archive| archive.size).sum();
        let megabytes = size.div_ceil(1_000_000);
        let what = match missing.len() {
            1 => format!("{}, {megabytes} MB", largest.package.pinned()),
            count => format!(
                "{} and {} more Debian packages, {megabytes} MB",
                largest.package.name,
                count - 1
            ),
        };
        let progress = Progress::percent(&format!("fetching {what}"));
        let mut command = self.command("apt-get");
        command.arg("download").current_dir(&self.archives);
        self.run_with_progress(
            command.args(missing.iter().map(|archive| archive.package.pinned())),
            &progress,
        )?;
        for archive in missing {
            ensure!(
                self.archives.join(&archive.file).exists(),
                "apt did not fetch {}",
                archive.file
            );
        }
        Ok(())
    }

    /// Every version of every package whose entire name matches.
    pub(super) fn matching(&self, pattern: &str) -> Result<Vec<Package>> {
        let found =
            run(self
                .command("apt-cache")
                .args(["search", "--names-only", &format!("^({pattern})$")]))?;
        let names: Vec<&str> = found
            .lines()
            .filter_map(|line| line.split_once(" - "))
            .map(|(name, _)| name)
            .collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let listed = run(self.command("apt-cache").arg("show").args(names))?;
        Ok(parse_archives(&listed)
            .into_iter()
            .map(|archive| archive.package)
            .collect())
    }

    /// Every version of a package; empty if the package is unknown.
    pub(super) fn versions(&self, name: &str) -> Result<Vec<Version>> {
        let listed = run(self.command("apt-cache").args(["madison", name]))?;
        Ok(listed
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(|text| Version::new(text.trim()))
            .collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", &self.config)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        command
    }

    /// Runs apt and shows the progress of its downloads.
    fn run_with_progress(&self, command: &mut Command, progress: &Progress) -> Result<()> {
        let log = self.config.with_extension("log");
        let mut child = command
            .args(["-qq", "-o", "APT::Status-Fd=1"])
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot run apt-get")?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                if let Some(permille) = parse_status(&line?) {
                    progress.set_permille(permille);
                }
            }
        }
        let status = child.wait()?;
        let mut errors = String::new();
        File::open(&log)?.read_to_string(&mut errors)?;
        // `update` succeeds even if a list could not be fetched; for us that is a failure.
        if !status.success()
            || errors
                .lines()
                .any(|line| line.starts_with("E:") || line.contains("Failed to fetch"))
        {
            bail!("apt-get failed ({status}):\n{}", errors.trim());
        }
        Ok(())
    }
}

/// One root per set of suites, because apt resolves among all packages that it knows.
fn folder_name(suites: &[Suite], provided: &[&str]) -> String {
    let hash = Sha256::digest(provided.join(" "));
    format!("{}-{:02x}{:02x}", names(suites, "+"), hash[0], hash[1])
}

pub(super) fn names(suites: &[Suite], separator: &str) -> String {
    suites
        .iter()
        .map(|suite| suite.name())
        .collect::<Vec<_>>()
        .join(separator)
}

fn sources(mirror: &Mirror, suites: &[Suite], kind: Kind) -> String {
    suites.iter().fold(String::new(), |mut text, suite| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} [signed-by={KEYRING}] {} {} main",
            kind.word(),
            mirror.of(*suite),
            suite.name()
        );
        text
    })
}

/// A dpkg status file with these packages installed, in a version that satisfies every dependency.
fn status(provided: &[&str]) -> String {
    provided.iter().fold(String::new(), |text, name| {
        format!(
            "{text}Package: {name}\nStatus: install ok installed\nMulti-Arch: foreign\nArchitecture: amd64\n\
             Maintainer: none <none>\nVersion: 999:0\nDescription: on the machine\n\n"
        )
    })
}

fn configuration(root: &Path, lists: &Path, archives: &Path) -> Result<String> {
    let root = root.display();
    let (lists, archives) = (lists.display(), archives.display());
    let mut text = format!(
        r#"Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::State "{root}";
Dir::State::lists "{lists}";
Dir::State::status "{root}/status";
Dir::Cache "{root}";
Dir::Cache::archives "{archives}";
Dir::Log "{root}";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "";
APT::Get::List-Cleanup "false";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::GzipIndexes "false";
// A suite that Debian no longer updates stays signed, but its Valid-Until date passes.
Acquire::Check-Valid-Until "false";
"#
    );
    // The machine's own settings come last, for example its proxy.
    let machine = run(Command::new("apt-config").args(["dump", "Acquire"]))?;
    for line in machine
        .lines()
        .filter(|line| NETWORK_SETTINGS.iter().any(|name| line.starts_with(name)))
    {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// Reads `name=version` of each line `Inst name (version suite [architecture])` of a simulated installation.
fn parse_plan(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_once(" ("))
        .filter_map(|(name, rest)| Some(format!("{name}={}", rest.split(' ').next()?)))
        .collect()
}

/// Reads each paragraph of `apt-cache show`.
fn parse_archives(text: &str) -> Vec<Archive> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| {
                paragraph
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let (name, version) = (field("Package")?, field("Version")?);
            let architecture = field("Architecture")?;
            Some(Archive {
                package: Package {
                    name: name.to_owned(),
                    version: Version::new(version),
                },
                file: format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a")),
                size: field("Size")?.parse().ok()?,
            })
        })
        .collect()
}

/// Reads the thousandths of a line `dlstatus:item:percent:text`.
fn parse_status(line: &str) -> Option<u64> {
    let (whole, fraction) = line
        .strip_prefix("dlstatus:")?
        .split(':')
        .nth(1)?
        .split_once('.')?;
    let tenth = fraction.get(..1)?.parse::<u64>().ok()?;
    Some(whole.parse::<u64>().ok()? * 10 + tenth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_installation_is_parsed() {
        let printed = "Reading package lists...\nInst zlib1g (1:1.2.13.dfsg-1 Debian:12.15/oldstable [amd64])\n\
            Inst ipset (7.17-1 Debian:12.15/oldstable [amd64])\nConf ipset (7.17-1 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(parse_plan(printed), ["zlib1g=1:1.2.13.dfsg-1", "ipset=7.17-1"]);
    }

    #[test]
    fn every_paragraph_is_parsed_and_files_are_named_as_by_apt() {
        let listed = "Package: zlib1g\nSource: zlib\nVersion: 1:1.2.13.dfsg-1\nArchitecture: amd64\nSize: 86694\n\n\
            Package: tzdata\nVersion: 2026a-1\nArchitecture: all\nSize: 5\nDescription: x\n Version: 9\n\n";
        let archives = parse_archives(listed);
        assert_eq!(archives.len(), 2);
        assert_eq!(archives[0].file, "zlib1g_1%3a1.2.13.dfsg-1_amd64.deb");
        assert_eq!(archives[0].package.pinned(), "zlib1g=1:1.2.13.dfsg-1");
        assert_eq!(
            (archives[1].file.as_str(), archives[1].size),
            ("tzdata_2026a-1_all.deb", 5)
        );
    }

    #[test]
    fn progress_is_parsed() {
        assert_eq!(
            parse_status("dlstatus:2:45.3217:Retrieving file 2 of 5"),
            Some(453)
        );
        assert_eq!(parse_status("pmstatus:dpkg:10.0:x"), None);
    }

    #[test]
    fn sources_always_name_the_keyring() {
        let mirror = Mirror::beside("http://m.example/debian");
        let text = sources(
            &mirror,
            &[Suite::BOOKWORM, Suite::BOOKWORM_SECURITY],
            Kind::Packages,
        );
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.contains("signed-by=/")), "{text}");
        assert!(
            text.contains("http://m.example/debian-security bookworm-security main"),
            "{text}"
        );
    }
}
