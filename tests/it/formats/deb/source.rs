//! Sources of packages, made by dpkg-source and unpacked by it again.

use std::collections::BTreeSet;
use std::path::Path;

use consign::layer::source::deb::{
    Access, AptSettings, Client, FoundSources, Network, Repository, SourceError, WantedSource,
    fetch_sources, find_sources,
};
use consign::report::Silent;

use super::archive::TestArchive;
use super::server::{Fault, Server};
use super::signer::NOW;
use crate::support::{must_run, program, temp_folder};

fn source(version: &str) -> WantedSource {
    WantedSource {
        name: "hello".into(),
        version: version.into(),
    }
}

/// An archive with the source of `hello`. `None`, said loudly, without tools.
fn archive() -> Option<TestArchive> {
    archive_of(&["hello"])
}

fn archive_of(names: &[&str]) -> Option<TestArchive> {
    let mut archive = TestArchive::new();
    for name in names {
        add_source(&archive, name)?;
    }
    let mut list = program("apt-ftparchive", "apt-utils")?;
    let listed = must_run(list.args(["sources", "pool"]).current_dir(archive.path("")));
    archive.sources = String::from_utf8(listed.stdout).expect("text");
    archive.publish();
    Some(archive)
}

/// Puts the source of a package into the archive's pool.
fn add_source(archive: &TestArchive, name: &str) -> Option<()> {
    let tree = temp_folder();
    let folder = tree.path().join(format!("{name}-1.0"));
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, text).expect("a file");
    };
    write("hello.c", "int main(void) { return 0; }\n");
    write("debian/source/format", "3.0 (native)\n");
    let control = format!(
        "Source: {name}\nMaintainer: Vendor <vendor@example.com>\n\nPackage: {name}\n\
         Architecture: all\nDescription: a test package\n"
    );
    write("debian/control", &control);
    let changes = format!(
        "{name} (1:1.0) stable; urgency=low\n\n  * First.\n\n -- Vendor <vendor@example.com>  \
         Sat, 01 Jan 2022 00:00:00 +0000\n"
    );
    write("debian/changelog", &changes);
    let pool = archive.path(&format!("pool/main/h/{name}"));
    std::fs::create_dir_all(&pool).expect("folders");
    let mut build = program("dpkg-source", "dpkg-dev")?;
    must_run(build.arg("--build").arg(&folder).current_dir(&pool));
    Some(())
}

fn with<T>(
    archive: &TestArchive,
    repository: &Repository,
    ask: impl FnOnce(&[Repository], &Access<'_>) -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    let client = Client::new(AptSettings::default(), Network::Online);
    let cache = archive.cache();
    let access = Access {
        client: &client,
        cache: &cache,
        now: NOW,
        reporter: &Silent,
    };
    ask(std::slice::from_ref(repository), &access)
}

fn collect(archive: &TestArchive, server: &Server, to: &Path) -> Result<FoundSources, SourceError> {
    let wanted = BTreeSet::from([source("1:1.0"), source("2.0")]);
    collect_all(&wanted, archive, server, to)
}

fn collect_all(
    wanted: &BTreeSet<WantedSource>,
    archive: &TestArchive,
    server: &Server,
    to: &Path,
) -> Result<FoundSources, SourceError> {
    let repository = archive.repository_at(&server.address());
    with(archive, &repository, |repositories, access| {
        let (pins, mut missing) = find_sources(wanted, repositories, access)?;
        let (found, gone) = fetch_sources(pins, repositories, access, to)?;
        missing.extend(gone);
        Ok((found, missing))
    })
}

#[test]
fn the_sources_of_a_package_come_whole_and_unpack() {
    let Some(archive) = archive() else { return };
    let server = Server::start(&archive.path(""));
    let folder = temp_folder();
    let (pins, missing) = collect(&archive, &server, folder.path()).expect("collected");
    assert_eq!(missing, [source("2.0")]);
    assert_eq!(pins.len(), 2, "{pins:?}");
    let description = folder.path().join("hello_1.0/hello_1.0.dsc");
    let mut unpack = program("dpkg-source", "dpkg-dev").expect("it was there before");
    must_run(
        unpack
            .args(["--no-check", "--extract"])
            .arg(&description)
            .arg(folder.path().join("unpacked")),
    );
    assert!(folder.path().join("unpacked/hello.c").is_file());
    // Once more: what is there and right stays, what was damaged comes again.
    let tar = folder.path().join("hello_1.0/hello_1.0.tar.xz");
    let sound = std::fs::read(&tar).expect("fetched");
    std::fs::write(&tar, "half of it").expect("written");
    let before = server.requests().len();
    collect(&archive, &server, folder.path()).expect("collected again");
    assert_eq!(std::fs::read(&tar).expect("fetched again"), sound);
    let asked = server.requests().split_off(before);
    let is_description = |request: &&Vec<String>| request.iter().any(|line| line.contains(".dsc"));
    assert_eq!(asked.iter().filter(is_description).count(), 0, "{asked:?}");
}

#[test]
fn a_source_with_other_bytes_than_its_list_says_is_refused() {
    let Some(archive) = archive() else { return };
    let server = Server::start(&archive.path(""));
    let folder = temp_folder();
    server.fail("hello_1.0.tar.xz", Fault::Flip);
    let error = collect(&archive, &server, folder.path()).expect_err("another byte");
    assert_eq!(error.slug(), "source-wrong-digest", "{error}");
    assert!(!folder.path().join("hello_1.0/hello_1.0.tar.xz").exists());
    // And a list that was changed after it was signed.
    let list = archive.path("dists/bookworm/main/source/Sources");
    let text = std::fs::read_to_string(&list).expect("published");
    std::fs::write(&list, text.replace("hello", "hallo")).expect("written");
    let error = collect(&archive, &server, folder.path()).expect_err("another list");
    assert_eq!(error.slug(), "source-wrong-digest", "{error}");
}

#[test]
fn a_source_that_is_listed_and_gone_is_named_and_the_others_come() {
    let Some(archive) = archive_of(&["hello", "other"]) else {
        return;
    };
    let server = Server::start(&archive.path(""));
    let folder = temp_folder();
    let tar = archive.path("pool/main/h/hello/hello_1.0.tar.xz");
    std::fs::remove_file(tar).expect("it was there");
    let other = WantedSource {
        name: "other".into(),
        version: "1:1.0".into(),
    };
    let wanted = BTreeSet::from([source("1:1.0"), other]);
    let (found, missing) =
        collect_all(&wanted, &archive, &server, folder.path()).expect("the rest");
    assert_eq!(missing, [source("1:1.0")]);
    let mut paths: Vec<_> = found.iter().map(|(path, _)| path.as_path()).collect();
    paths.sort();
    let both = ["other_1.0/other_1.0.dsc", "other_1.0/other_1.0.tar.xz"];
    assert_eq!(paths, both.map(Path::new));
    for path in paths {
        assert!(folder.path().join(path).is_file(), "{}", path.display());
    }
    // Of the other one nothing stays that nobody lists.
    assert!(!folder.path().join("hello_1.0").exists());
}

#[test]
fn a_list_that_has_a_file_twice_is_refused() {
    let Some(mut archive) = archive() else { return };
    let is_sum = |line: &&str| {
        let digest = line.split_whitespace().next();
        line.ends_with(" hello_1.0.tar.xz") && digest.is_some_and(|hex| hex.len() == 64)
    };
    let line = archive.sources.lines().find(is_sum);
    let line = line.expect("a sum by SHA-256").to_owned();
    archive.sources = archive.sources.replace(&line, &format!("{line}\n{line}"));
    archive.publish();
    let server = Server::start(&archive.path(""));
    let folder = temp_folder();
    let error = collect(&archive, &server, folder.path()).expect_err("which of the two?");
    assert_eq!(error.slug(), "source-malformed", "{error}");
}
