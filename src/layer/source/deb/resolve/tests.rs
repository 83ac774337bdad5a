use super::super::index::Index;
use super::*;
use crate::layer::spec::PackageLimit;
use crate::report::Silent;

/// One suite from stanzas written short: `NAME VERSION; Field: value; …`.
pub(super) fn archive(lines: &[&str]) -> Archive {
    let mut text = String::new();
    for line in lines {
        let mut parts = line.split(';').map(str::trim);
        let (name, version) = parts
            .next()
            .and_then(|it| it.split_once(' '))
            .expect("a name");
        let digest = Digest::of(line.as_bytes()).hex();
        let head = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nSize: 1\nSHA256: {digest}\n\
             Filename: pool/{name}.deb\n"
        );
        text.push_str(&head);
        for field in parts {
            text.push_str(field);
            text.push('\n');
        }
        text.push('\n');
    }
    let index = Index::read("s", "amd64", text.as_bytes()).expect("it parses");
    Archive::new(vec![index]).expect("one list")
}

fn request(layers: &[&str]) -> Request {
    let layers = layers
        .iter()
        .enumerate()
        .map(|(at, packages)| LayerRequest {
            name: format!("layer{at}"),
            packages: packages.split_whitespace().map(str::to_owned).collect(),
            recommends: false,
        });
    Request {
        architecture: "amd64".into(),
        base: Base::Essential,
        layers: layers.collect(),
        exclude: Vec::new(),
        provided: Vec::new(),
        limits: Vec::new(),
        held: Vec::new(),
    }
}

fn names(archive: &Archive, request: &Request) -> Vec<String> {
    let layers = solve(archive, request, &Silent).expect("it fits");
    let joined = |layer: &ResolvedLayer| {
        layer
            .pins
            .iter()
            .map(|pin| pin.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    layers.iter().map(joined).collect()
}

fn error(archive: &Archive, request: &Request) -> SourceError {
    solve(archive, request, &Silent).expect_err("it does not fit")
}

#[test]
fn packages_come_by_name_and_say_why() {
    let archive = archive(&["a 1; Depends: b, c", "b 1; Depends: c", "c 1", "d 1"]);
    let layers = solve(&archive, &request(&["a"]), &Silent).expect("it fits");
    let shown: Vec<_> = layers[0]
        .pins
        .iter()
        .map(|pin| format!("{} ({})", pin.name, pin.reason))
        .collect();
    assert_eq!(
        shown,
        ["a (requested)", "b (needed by a)", "c (needed by b)"]
    );
}

#[test]
fn a_package_comes_in_the_lowest_layer_that_needs_it() {
    let archive = archive(&[
        "base 1; Essential: yes; Depends: libc",
        "libc 1",
        "web 1; Depends: libc, ssl",
        "app 1; Depends: ssl, web",
        "ssl 1",
    ]);
    assert_eq!(
        names(&archive, &request(&["", "web", "app"])),
        ["base libc", "ssl web", "app"]
    );
}

#[test]
fn a_package_wanted_above_satisfies_a_choice_below() {
    let archive = archive(&[
        "cron 1; Depends: exim | mta",
        "exim 1; Provides: mta; Conflicts: mta",
        "postfix 1; Provides: mta; Conflicts: mta",
    ]);
    assert_eq!(
        names(&archive, &request(&["cron", "postfix"])),
        ["cron postfix", ""]
    );
    assert_eq!(names(&archive, &request(&["cron"])), ["cron exim"]);
}

#[test]
fn essential_packages_come_with_what_they_need() {
    let archive = archive(&["a 1", "z 1; Essential: yes; Depends: y", "y 1"]);
    assert_eq!(names(&archive, &request(&["a"])), ["a y z"]);
    let request = Request {
        base: Base::Nothing,
        ..request(&["a"])
    };
    assert_eq!(names(&archive, &request), ["a"]);
}

#[test]
fn versions_bound_dependencies_and_provides() {
    let archive = archive(&[
        "a 1; Depends: lib (>= 2)",
        "lib 1",
        "lib-ng 5; Provides: lib (= 2.1), other",
        "b 1; Depends: other (>= 1) | lib (<< 2)",
    ]);
    assert_eq!(names(&archive, &request(&["a b"])), ["a b lib lib-ng"]);
}

#[test]
fn the_newest_version_is_the_candidate_unless_another_is_asked_for() {
    let archive = archive(&["a 1", "a 2"]);
    let version = |wanted: &str| {
        let layers = solve(&archive, &request(&[wanted]), &Silent).expect("it fits");
        layers[0].pins[0].version.clone()
    };
    assert_eq!(
        (version("a"), version("a=1"), version("a/s")),
        ("2".into(), "1".into(), "2".into())
    );
    let error = error(&archive, &request(&["a=3"]));
    assert_eq!(
        error.to_string(),
        "layer `layer0` asks for `a=3`, but there is only 2 (s), 1 (s)"
    );
}

#[test]
fn an_unknown_package_is_answered_with_the_nearest_names() {
    let archive = archive(&["nginx 1", "nginx-core 1", "openssh-server 1", "zsh 1"]);
    let error = error(&archive, &request(&["ngnix"]));
    assert_eq!(
        error.to_string(),
        "layer `layer0` asks for package `ngnix`, which no source has"
    );
    assert_eq!(error.hint().as_deref(), Some("did you mean `nginx`?"));
    assert_eq!(
        (error.slug(), error.class().code()),
        ("source-unknown-package", 2)
    );
    let error = super::tests::error(&archive, &request(&["openssh"]));
    assert_eq!(
        error.hint().as_deref(),
        Some("did you mean `openssh-server`?")
    );
}

#[test]
fn a_virtual_package_is_answered_with_its_providers() {
    let archive = archive(&["exim 1; Provides: mta", "postfix 1; Provides: mta"]);
    let error = error(&archive, &request(&["mta"]));
    assert_eq!(
        error.to_string(),
        "layer `layer0` asks for package `mta`, which is only a virtual package, provided by \
         `exim`, `postfix`"
    );
    assert_eq!(error.hint().as_deref(), Some("ask for `exim` or `postfix`"));
}

#[test]
fn pretended_packages_satisfy_and_are_not_installed() {
    let archive = archive(&[
        "linux 6; Depends: initramfs-tools (>= 0.120) | linux-initramfs-tool",
        "initramfs-tools 1; Provides: linux-initramfs-tool; Depends: missing",
    ]);
    let mut request = request(&["linux"]);
    request.provided = vec!["linux-initramfs-tool".into()];
    assert_eq!(names(&archive, &request), ["linux"]);
}

#[test]
fn a_conflict_names_both_and_why_each_is_there() {
    let archive = archive(&[
        "web 1; Depends: apache",
        "apache 2.4; Conflicts: httpd (<< 3)",
        "app 1; Depends: server",
        "server 1; Depends: nginx",
        "nginx 1; Provides: httpd (= 1)",
    ]);
    let error = error(&archive, &request(&["web", "app"]));
    assert_eq!(
        error.to_string(),
        "the packages cannot be installed together: `server` depends on `nginx`, but `nginx` and \
         `apache` exclude each other (apache Conflicts: httpd (<< 3)), and `apache` 2.4 is needed \
         by `web`, which is asked for by layer `layer0`; `server` 1 is needed by `app`, which is \
         asked for by layer `layer1`"
    );
    assert_eq!(error.slug(), "source-unsatisfiable");
    assert_eq!(
        error.hint().as_deref(),
        Some("leave out one of the packages that exclude each other")
    );
}

#[test]
fn wanted_packages_that_conflict_are_named() {
    let archive = archive(&["a 1; Breaks: b (<< 2)", "b 1"]);
    let error = error(&archive, &request(&["a b"]));
    assert_eq!(
        error.to_string(),
        "the packages cannot be installed together: `b` and `a` exclude each other (a Breaks: b \
         (<< 2)); `b` 1 is asked for by layer `layer0`; `a` 1 is asked for by layer `layer0`"
    );
}

#[test]
fn the_search_takes_back_a_choice_that_ends_dead() {
    // The straight way takes x for a, and then z needs what x excludes.
    let archive = archive(&[
        "a 1; Depends: x | y",
        "x 1; Depends: x-data",
        "x-data 1; Conflicts: w",
        "y 1",
        "z 1; Depends: w",
        "w 1",
    ]);
    assert_eq!(names(&archive, &request(&["a z"])), ["a w y z"]);
}

#[test]
fn the_search_proves_that_there_is_no_way() {
    let archive = archive(&[
        "a 1; Depends: x | y",
        "x 1; Conflicts: w",
        "y 1; Conflicts: w",
        "z 1; Depends: w",
        "w 1",
    ]);
    let error = error(&archive, &request(&["a z"]));
    assert!(
        error
            .to_string()
            .contains("`x` and `w` exclude each other (x Conflicts: w)"),
        "{error}"
    );
}

#[test]
fn what_cannot_hold_together_is_told_from_the_wishes_downwards() {
    let archive = archive(&[
        "a 1; Depends: x | y",
        "x 1; Conflicts: w",
        "y 1; Conflicts: w",
        "z 1; Depends: w",
        "w 1",
    ]);
    let error = error(&archive, &request(&["a z"]));
    assert_eq!(
        error.to_string(),
        "the packages cannot be installed together: layer `layer0` asks for `a`; layer `layer0` \
         asks for `z`; `a` needs `x | y`; `z` needs `w`; `x` and `w` exclude each other (x \
         Conflicts: w); `y` and `w` exclude each other (y Conflicts: w)"
    );
}

#[test]
fn an_older_version_is_chosen_where_the_newest_does_not_fit() {
    let archive = archive(&[
        "app 1; Depends: lib (= 1)",
        "lib 1",
        "lib 2",
        "tool 1; Depends: lib",
    ]);
    let recorder = crate::report::Recorder::default();
    let layers = solve(&archive, &request(&["tool app"]), &recorder).expect("it fits");
    let shown: Vec<_> = layers[0]
        .pins
        .iter()
        .map(|pin| format!("{} {}", pin.name, pin.version))
        .collect();
    assert_eq!(shown, ["app 1", "lib 1", "tool 1"]);
    let said = format!("{:?}", recorder.events());
    assert!(
        said.contains("`lib` 1 is chosen, since version 2 does not go with the other packages"),
        "{said}"
    );
}

#[test]
fn held_packages_stay_and_those_that_must_move_with_others_do() {
    let archive = archive(&[
        "nginx 1; Depends: nginx-common (= 1), zlib",
        "nginx 2; Depends: nginx-common (= 2), zlib",
        "nginx-common 1",
        "nginx-common 2",
        "zlib 1",
        "zlib 2",
    ]);
    let hold = |line: &str| {
        let (name, rest) = line.split_once(' ').expect("a version");
        Held {
            name: name.into(),
            version: rest.split(';').next().expect("a version").into(),
            sha256: Digest::of(line.as_bytes()),
        }
    };
    let nginx = hold("nginx 1; Depends: nginx-common (= 1), zlib");
    let rest = [hold("nginx-common 1"), hold("zlib 1")];
    let mut request = request(&["nginx"]);
    let chosen = |request: &Request| {
        let layers = solve(&archive, request, &Silent).expect("it fits");
        let shown = |pin: &PackagePin| format!("{} {}", pin.name, pin.version);
        layers[0]
            .pins
            .iter()
            .map(shown)
            .collect::<Vec<_>>()
            .join(" ")
    };
    request.held = [vec![nginx], rest.to_vec()].concat();
    assert_eq!(chosen(&request), "nginx 1 nginx-common 1 zlib 1");
    request.held = rest.to_vec();
    assert_eq!(chosen(&request), "nginx 2 nginx-common 2 zlib 1");
    request.held = Vec::new();
    assert_eq!(chosen(&request), "nginx 2 nginx-common 2 zlib 2");
    // Other bytes under the same version are another package.
    let mut other = hold("zlib 1");
    other.sha256 = Digest::of(b"other");
    request.held = vec![other];
    assert_eq!(chosen(&request), "nginx 2 nginx-common 2 zlib 2");
}

#[test]
fn limits_choose_versions_and_say_so_when_none_is_left() {
    let archive = archive(&["a 1.1", "a 1.2", "a 2.0", "b 1; Depends: a"]);
    let limit = |version: &str| PackageLimit {
        packages: vec!["a*".into()],
        version: Some(version.into()),
        source: None,
    };
    let mut request = request(&["b"]);
    request.limits = vec![limit("1.*")];
    let layers = solve(&archive, &request, &Silent).expect("it fits");
    assert_eq!(layers[0].pins[0].version, "1.2");
    request.limits = vec![limit("3.*")];
    let stuck = error(&archive, &request);
    assert_eq!(
        stuck.to_string(),
        "the packages cannot be installed together: `b` depends on `a`, but the [[pin]] of `a` \
         fits none of its versions; `b` 1 is asked for by layer `layer0`"
    );
    request.layers[0].packages = vec!["a".into()];
    let asked = error(&archive, &request);
    assert_eq!(
        asked.to_string(),
        "layer `layer0` asks for `a 3.*`, but there is only 2.0 (s), 1.2 (s), 1.1 (s)"
    );
}

#[test]
fn excluded_packages_never_come() {
    let archive = archive(&[
        "a 1; Depends: b | c",
        "b 1",
        "c 1",
        "d 1; Depends: b",
        "e 1; Essential: yes",
    ]);
    let mut request = request(&["a"]);
    request.exclude = vec!["b".into(), "e".into()];
    assert_eq!(names(&archive, &request), ["a c"]);
    request.layers[0].packages = vec!["d".into()];
    let stuck = error(&archive, &request);
    assert_eq!(
        stuck.to_string(),
        "the packages cannot be installed together: `d` depends on `b`, but `b` is excluded; `d` \
         1 is asked for by layer `layer0`"
    );
    request.layers[0].packages = vec!["b".into()];
    let asked = error(&archive, &request);
    assert!(
        asked
            .to_string()
            .ends_with("layer `layer0` asks for `b`, which is excluded")
    );
}

#[test]
fn recommended_packages_come_only_where_they_are_wanted_and_fit() {
    let archive = archive(&[
        "a 1; Recommends: b, bad, c; Depends: d",
        "b 1; Depends: b-lib",
        "b-lib 1",
        "bad 1; Conflicts: d",
        "c 1; Depends: missing",
        "d 1; Recommends: e",
        "e 1",
    ]);
    let mut request = request(&["a"]);
    assert_eq!(names(&archive, &request), ["a d"]);
    request.layers[0].recommends = true;
    assert_eq!(names(&archive, &request), ["a b b-lib d e"]);
}

#[test]
fn a_missing_dependency_says_what_there_is() {
    let archive = archive(&["a 1; Depends: b (>= 2) | c:i386", "b 1", "c 1"]);
    let error = error(&archive, &request(&["a"]));
    assert_eq!(
        error.to_string(),
        "the packages cannot be installed together: `a` depends on `b (>= 2) | c:i386`, but `b \
         (>= 2)` is not met by version 1, the only one, no source has `c:i386`; `a` 1 is asked for by layer `layer0`"
    );
    assert_eq!(
        error.hint().as_deref(),
        Some("add the source that has it, or leave out what depends on it")
    );
}

#[test]
fn malformed_relations_and_pins_are_refused_by_name() {
    let broken = archive(&["a 1; Depends: b (~ 1)"]);
    let found = error(&broken, &request(&["a"]));
    assert_eq!(
        found.to_string(),
        "`Packages` of suite `s` is malformed: Depends of a has `b (~ 1)`"
    );
    let path = Index::read(
        "s",
        "amd64",
        "Package: a\nVersion: 1\nArchitecture: all\nFilename: ../../etc/passwd\n".as_bytes(),
    );
    let archive = Archive::new(vec![path.expect("it parses")]).expect("one list");
    let found = error(&archive, &request(&["a"]));
    assert!(
        found.to_string().ends_with("a has no good Filename"),
        "{found}"
    );
}
