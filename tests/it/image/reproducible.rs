//! The same bytes, whoever builds, wherever and in whatever surroundings,
//! and whatever went wrong before; and a build needs no root and no mounts.

use std::collections::BTreeMap;
use std::path::Path;

use consign::digest::Digest;

use crate::cli::bad_input::everything_goes_wrong;
use crate::support::appliance::appliance;
use crate::support::other_place::{OtherPlace, USER};
use crate::support::{digest_of, must_run, program, text_of};

fn digests(folder: &Path) -> BTreeMap<String, Digest> {
    consign::tree::list_folder(folder)
        .expect("the output folder")
        .into_iter()
        .filter(|file| file.metadata.is_file())
        // The stamp of the nothing-changed path holds times of files.
        .filter(|file| !file.name.to_string_lossy().starts_with('.'))
        .map(|file| {
            (
                file.name.to_string_lossy().into_owned(),
                digest_of(&file.path),
            )
        })
        .collect()
}

#[test]
fn an_ordinary_user_elsewhere_builds_the_same_bytes_without_mounts() {
    let first = digests(
        appliance()
            .file("reference.raw")
            .parent()
            .expect("a folder"),
    );
    let Some(place) = OtherPlace::of(USER) else {
        return;
    };
    // The cache that is used from here on has seen all of it.
    let Some(mirror) = everything_goes_wrong(&place) else {
        return;
    };
    let build = "./consign build --jobs 1 -o 'the output' --progress plain";
    let Some(mut first_build) = place.shell(&[mirror.variable()], build) else {
        return;
    };
    must_run(&mut first_build);
    let second = digests(&place.path("an other place/the output"));
    assert_eq!(first, second);

    // With its layers cached a build is plain file input and output.
    let clean = "rm -r 'the output'";
    let calls = "mount,umount2,unshare,setns,pivot_root,chroot,move_mount,fsmount,open_tree";
    let traced =
        format!("{clean}; strace -f -qq -e trace={calls} -o ../calls {build} && cat ../calls");
    let Some(mut second_build) = place.shell(&[], &traced) else {
        return;
    };
    if program("strace", "strace").is_none() {
        return;
    }
    let output = must_run(&mut second_build);
    let called = String::from_utf8_lossy(&output.stdout);
    assert!(
        !called.contains('('),
        "system calls:\n{called}\n{}",
        text_of(&output)
    );
    assert_eq!(digests(&place.path("an other place/the output")), first);
}
