//! Where packages come from, from outside: a vendor's own repository and
//! package files, the lock's life, and builds without a network.
//!
//! Debian's own packages are real ones, from the sources of this host.

use std::process::Output;

use crate::formats::deb::server::Server;
use crate::support::appliance::appliance;
use crate::support::vendor::{VendorRepository, build_package};
use crate::support::{
    TestFolder, consign, consign_path, is_root, note, program, repo_root, run, temp_folder, text_of,
};

/// A project whose application comes from a vendor's repository and from a
/// package file of its own.
struct Project {
    folder: TestFolder,
    vendor: VendorRepository,
    server: Server,
}

impl Project {
    fn new() -> Option<Self> {
        let vendor = VendorRepository::new()?;
        vendor.add("acme-lib", "1.0", "libc6");
        vendor.add("acme-app", "1.0", "acme-lib (>= 1.0)");
        vendor.publish();
        let server = Server::start(&vendor.root());
        let folder = temp_folder();
        let project = Self {
            folder,
            vendor,
            server,
        };
        project.vendor.write_key(&project.path("keys/acme.asc"));
        let base = std::fs::read_to_string(repo_root().join("layers/base/layer.toml"));
        project.write("layers/base/layer.toml", &base.expect("the shipped layer"));
        project.write(
            "layers/app/layer.toml",
            "kind = \"packages\"\npackages = [\"acme-app\"]\ndebs = [\"debs/*.deb\"]\n",
        );
        build_package(
            &project.path("layers/app/debs"),
            "product",
            "3.1",
            "acme-lib",
        );
        let address = project.server.address();
        project.write(
            "appliance.toml",
            &format!(
                "schema = 1\n[appliance]\nname = \"acme\"\nversion = \"1\"\n[system]\n\
                 distribution = \"debian\"\nsuite = \"bookworm\"\nlayers = [\"base\", \"app\"]\n\
                 [[repository]]\nname = \"acme\"\nurl = \"{address}\"\nsuite = \"stable\"\n\
                 key = \"keys/acme.asc\"\npackages = [\"acme-*\"]\n[outputs]\nformats = [\"raw\"]\n"
            ),
        );
        Some(project)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, text).expect("a file");
    }

    fn consign(&self, args: &[&str]) -> Output {
        run(consign().current_dir(self.folder.path()).args(args))
    }

    fn must(&self, args: &[&str]) -> String {
        let output = self.consign(args);
        assert!(output.status.success(), "{args:?}: {}", text_of(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Exit code and standard error.
    fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.consign(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().expect("no signal"), said)
    }

    fn lock(&self) -> String {
        std::fs::read_to_string(self.path("appliance.lock")).expect("a lock")
    }

    /// The versions of the vendor's packages in the lock.
    fn versions(&self) -> String {
        let lock: toml::Table = self.lock().parse().expect("TOML");
        let layers = lock["layer"].as_array().expect("layers");
        let app = layers[1]["package"].as_array().expect("packages");
        let shown = |pin: &toml::Value| {
            let text = |key: &str| pin[key].as_str().expect("text").to_owned();
            format!("{} {} {}", text("name"), text("version"), text("suite"))
        };
        app.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn a_lock_moves_only_what_it_is_told_to_move() {
    let Some(project) = Project::new() else {
        return;
    };
    project.must(&["lock"]);
    assert_eq!(
        project.versions(),
        "acme-app 1.0 acme, acme-lib 1.0 acme, product 3.1 local"
    );
    assert!(!project.lock().contains("://"), "an address is in the lock");
    assert!(project.must(&["lock"]).ends_with("  nothing has moved\n"));

    project.vendor.add("acme-lib", "1.1", "libc6");
    project.vendor.add("acme-app", "1.1", "acme-lib (>= 1.1)");
    project.vendor.publish();
    assert!(project.must(&["lock"]).ends_with("  nothing has moved\n"));
    let said = project.must(&["lock", "--update", "acme-lib"]);
    assert!(
        said.ends_with("packages\n    acme-lib 1.0 -> 1.1\n"),
        "{said}"
    );
    let said = project.must(&["lock", "--update"]);
    assert!(said.contains("\n    acme-app 1.0 -> 1.1\n"), "{said}");
    let (code, said) = project.fails(&["lock", "--update", "acme-nothing"]);
    assert_eq!(code, 2);
    assert!(said.contains("`acme-nothing` is not in the lock"), "{said}");

    // Updated alone, a package takes along what it needs for it.
    project.vendor.add("acme-lib", "1.2", "libc6");
    project.vendor.add("acme-app", "1.2", "acme-lib (>= 1.2)");
    project.vendor.publish();
    let said = project.must(&["lock", "--update", "acme-app"]);
    assert!(
        said.ends_with("    acme-app 1.1 -> 1.2\n    acme-lib 1.1 -> 1.2\n"),
        "{said}"
    );
}

#[test]
fn a_locked_build_refuses_drift_and_says_what_moved() {
    let Some(project) = Project::new() else {
        return;
    };
    let (code, said) = project.fails(&["fetch", "--locked"]);
    assert_eq!(code, 2);
    assert!(said.contains("`appliance.lock` does not exist"), "{said}");
    let mut in_ci = consign();
    in_ci.current_dir(project.folder.path()).env("CI", "true");
    let output = run(in_ci.arg("build"));
    assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
    assert!(
        text_of(&output).contains("--unlocked"),
        "{}",
        text_of(&output)
    );

    project.must(&["lock"]);
    build_package(
        &project.path("layers/app/debs"),
        "product",
        "3.1",
        "acme-lib (>= 1.0)",
    );
    let recipe = project.path("layers/app/layer.toml");
    let text = std::fs::read_to_string(&recipe).expect("a recipe");
    std::fs::write(
        &recipe,
        text.replace("\"acme-app\"", "\"acme-app\", \"less\""),
    )
    .expect("write");
    let (code, said) = project.fails(&["build", "--locked"]);
    assert_eq!(code, 2);
    assert!(
        said.contains(
            "layer `app` now asks for `less`; package `product` moved: \
             `layers/app/debs/product_3.1_amd64.deb` is another file"
        ),
        "{said}"
    );
    // Fetching says the same, before it fetches anything.
    let (code, fetched) = project.fails(&["fetch", "--locked"]);
    assert_eq!(code, 2);
    assert!(
        fetched.contains("layer `app` now asks for `less`") && !fetched.contains("fetch:"),
        "{fetched}"
    );
    std::fs::write(&recipe, text).expect("write");
    let said = project.must(&["lock"]);
    assert!(
        said.contains("  ! product 3.1 has other bytes than before\n"),
        "{said}"
    );
}

#[test]
fn what_was_fetched_builds_without_a_network() {
    let Some(project) = Project::new() else {
        return;
    };
    // The base layer, its packages and the agent come from there.
    appliance();
    project.must(&["lock"]);
    project.must(&["fetch", "--locked"]);
    if !is_root() {
        return note("no network namespace: needs root");
    }
    let Some(mut build) = program("unshare", "util-linux") else {
        return;
    };
    build.env_remove("CI").current_dir(project.folder.path());
    build.arg("--net").arg(consign_path());
    let output = run(build.args(["build", "--locked", "--offline"]));
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(project.path("out/acme.raw").is_file());
    assert_no_connection(&project);
}

/// Not one socket of the Internet is even made.
fn assert_no_connection(project: &Project) {
    let Some(mut strace) = program("strace", "strace") else {
        return;
    };
    let log = project.path("calls");
    strace.env_remove("CI").current_dir(project.folder.path());
    strace
        .args(["-f", "-qq", "-e", "trace=socket,connect", "-o"])
        .arg(&log);
    let args = ["build", "--locked", "--offline", "-o", "again"];
    let output = run(strace.arg(consign_path()).args(args));
    assert!(output.status.success(), "{}", text_of(&output));
    let calls = std::fs::read_to_string(&log).expect("a log");
    assert!(!calls.contains("AF_INET"), "{calls}");
}

#[test]
fn what_is_gone_or_missing_has_its_own_words() {
    let Some(project) = Project::new() else {
        return;
    };
    // Debian's packages come from there; the vendor's are in no cache yet.
    appliance();
    project.must(&["lock"]);
    let (code, said) = project.fails(&["build", "--locked", "--offline"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("package `acme-app` 1.0 is not in the cache, and the build is offline")
            && said.contains("consign fetch"),
        "{said}"
    );
    std::fs::remove_dir_all(project.vendor.root().join("pool")).expect("the pool");
    let (code, said) = project.fails(&["fetch", "--locked"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("error[source-gone]")
            && said.contains("`acme-app` 1.0 is locked, but gone from the mirror")
            && said.contains("consign lock --update"),
        "{said}"
    );
}
