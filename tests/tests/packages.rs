//! The package cache against Debian's real archive.

use std::fs;

use tracer_lab::packages::{Cache, Dependencies, Suite, available, newest, unpack};

#[test]
#[ignore = "fetches from Debian's archive"]
fn fetches_checks_and_unpacks() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path()).unwrap();
    let suites = [Suite::BOOKWORM, Suite::BOOKWORM_SECURITY];

    let package = newest(&cache, &suites, "ipset").unwrap();
    assert!(available(&cache, &suites, &package).unwrap());

    let alone = unpack(&cache, &suites, &[&package.pinned()], Dependencies::None).unwrap();
    assert_eq!(alone.version_of("ipset"), Some(&package.version));
    assert_eq!(alone.packages.len(), 1);
    assert!(alone.root.join("usr/sbin/ipset").exists());
    assert!(
        fs::symlink_metadata(alone.root.join("sbin"))
            .unwrap()
            .is_symlink()
    );

    let all = unpack(&cache, &suites, &["ipset"], Dependencies::All).unwrap();
    assert!(all.version_of("libc6").is_some());
    // The package has its libraries in lib, which is a link to usr/lib and must stay one.
    assert!(all.root.join("usr/lib/x86_64-linux-gnu/libc.so.6").exists());
    assert!(fs::symlink_metadata(all.root.join("lib")).unwrap().is_symlink());

    let without = unpack(&cache, &suites, &["ipset"], Dependencies::Except(&["libc6"])).unwrap();
    assert!(without.version_of("libc6").is_none());
    assert!(without.version_of("libipset13").is_some());

    let error = unpack(&cache, &suites, &["no-such-package"], Dependencies::None).unwrap_err();
    assert!(format!("{error:#}").contains("no-such-package"), "{error:#}");
}
