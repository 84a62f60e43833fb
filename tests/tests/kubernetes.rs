//! The build of the control plane.

use std::process::Command;

use tracer_lab::packages::Cache;
use tracer_lab::vm::kubernetes::Kubernetes;

#[test]
#[ignore = "fetches 150 MB from Debian's archive and compiles for minutes"]
fn the_programs_are_built_and_know_their_version() {
    let cache = Cache::open().unwrap();
    let [api_server, kube_proxy, etcd, kubectl] = Kubernetes::fetch(&cache).unwrap().programs();
    for program in [api_server, kube_proxy] {
        let output = Command::new(&program).arg("--version").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(printed.trim(), "Kubernetes v1.20.2", "{}", program.display());
    }
    assert!(etcd.exists() && kubectl.exists());
}
