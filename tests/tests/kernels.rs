//! The lab's kernels, from Debian's real archive.

use std::fs;

use tracer_lab::packages::Cache;
use tracer_lab::vm::kernels::{Build, Ipvs, Kernel, SERIES, Series};

#[test]
#[ignore = "fetches 200 MB from Debian's archive unless cached"]
fn every_series_has_a_kernel_with_ipvs() {
    let cache = Cache::open().unwrap();
    for series in SERIES {
        let kernel = Kernel::fetch(&cache, series, Build::Cloud, Ipvs::Packaged).unwrap();
        println!("{series}: {} {}", kernel.release, kernel.vmlinuz.display());
        assert!(
            kernel.release.starts_with(&format!("{series}.")),
            "{}",
            kernel.release
        );
        assert!(fs::metadata(&kernel.vmlinuz).unwrap().len() > 1_000_000);
        let ipvs = kernel.modules_dir.join("kernel/net/netfilter/ipvs");
        let modules: Vec<_> = fs::read_dir(&ipvs)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            modules.iter().any(|name| name.starts_with("ip_vs.ko")),
            "{modules:?}"
        );
        assert!(kernel.overrides.is_empty());
    }
}

#[test]
#[ignore = "fetches 150 MB from Debian's archive and compiles, unless cached"]
fn the_old_ipvs_is_a_module_for_its_kernel() {
    let cache = Cache::open().unwrap();
    let series: Series = "5.10".parse().unwrap();
    let kernel = Kernel::fetch(&cache, series, Build::Cloud, Ipvs::Pre59).unwrap();
    let (name, path) = &kernel.overrides[0];
    assert_eq!(name, "ip_vs");
    let module = fs::read(path).unwrap();
    let magic = format!("vermagic={} SMP mod_unload modversions \0", kernel.release);
    assert!(
        module
            .windows(magic.len())
            .any(|window| window == magic.as_bytes())
    );
    assert!(module.len() < 1_000_000, "not stripped: {} bytes", module.len());

    let newer: Series = "6.12".parse().unwrap();
    Kernel::fetch(&cache, newer, Build::Cloud, Ipvs::Pre59).unwrap_err();
}
