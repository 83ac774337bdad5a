//! Every file of a release, with every damage: none is accepted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use consign::release::ReleaseError;
use consign::release::verify::{Policy, folder as verify};
use consign::report::Silent;
use consign::sign::PublicKey;
use consign::units::ExitClass;

use super::openpgp::Vendor;
use super::{keygen, refusal, sample, signer, write_release, write_release_for};
use crate::support::{consign, must_run, run, temp_folder, text_of};

fn policy(public: &Path) -> Policy {
    Policy {
        keys: vec![PublicKey::open(public).expect("a public key")],
        threshold: 1,
        ..Policy::default()
    }
}

/// Refused, in words, as a verification.
fn refused(folder: &Path, policy: &Policy, what: &str) -> ReleaseError {
    let error = verify(folder, policy, 2, &Silent).expect_err(what);
    assert_eq!(error.class(), ExitClass::Verification, "{what}: {error}");
    assert!(
        !error.to_string().is_empty() && error.hint().is_some()
            || matches!(error, ReleaseError::Read { .. }),
        "{what}"
    );
    error
}

/// All names in `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries = consign::tree::list_folder(folder).expect("a folder");
    let names = entries
        .iter()
        .map(|entry| entry.name.to_string_lossy().into_owned());
    names.collect()
}

/// Sixty-four bits, spread over the file, first and last byte among them.
fn bits(length: usize) -> Vec<(usize, u8)> {
    let last = length - 1;
    (0..64_usize)
        .map(|n| (last * n / 63, u8::try_from(n * 5 % 8).expect("below 8")))
        .collect()
}

#[test]
fn no_file_can_be_changed_in_any_way() {
    let sample = sample();
    no_change_is_accepted(&sample.folder, &policy(&sample.public));
    // And with a signature by gpg, for a customer who does not even have that key.
    let Some(vendor) = Vendor::new() else { return };
    let release = vendor.release("release", "vendor@example.com");
    no_change_is_accepted(&release, &policy(&vendor.public));
}

fn no_change_is_accepted(release: &Path, policy: &Policy) {
    verify(release, policy, 2, &Silent).expect("accepted as it is");
    let all = names(release);
    assert!(all.len() > 10, "{all:?}");
    let mut count = 0;
    for (at, name) in all.iter().enumerate() {
        let path = release.join(name);
        let sound = fs::read(&path).expect("read");
        let mut damaged: Vec<(String, Vec<u8>)> = bits(sound.len())
            .into_iter()
            .map(|(byte, bit)| {
                let mut bytes = sound.clone();
                bytes[byte] ^= 1 << bit;
                (format!("{name}: bit {bit} of byte {byte}"), bytes)
            })
            .collect();
        damaged.push((
            format!("{name}: truncated"),
            sound[..sound.len() / 2].to_vec(),
        ));
        damaged.push((format!("{name}: empty"), Vec::new()));
        damaged.push((format!("{name}: appended"), [&sound[..], b"\n"].concat()));
        damaged.push((format!("{name}: prepended"), [b"\n", &sound[..]].concat()));
        for (what, bytes) in damaged {
            fs::write(&path, bytes).expect("written");
            refused(release, policy, &what);
            count += 1;
        }
        fs::remove_file(&path).expect("removed");
        refused(release, policy, &format!("{name}: deleted"));
        let elsewhere = release.with_extension("elsewhere");
        fs::write(&elsewhere, &sound).expect("written");
        symlink(&elsewhere, &path).expect("linked");
        refused(release, policy, &format!("{name}: a link"));
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder");
        refused(release, policy, &format!("{name}: a folder"));
        fs::remove_dir(&path).expect("removed");
        let other = &all[(at + 1) % all.len()];
        let theirs = fs::read(release.join(other)).expect("read");
        fs::write(&path, &theirs).expect("written");
        fs::write(release.join(other), &sound).expect("written");
        refused(release, policy, &format!("{name} and {other}: swapped"));
        fs::write(&path, &sound).expect("written");
        fs::write(release.join(other), &theirs).expect("written");
        count += 4;
    }
    let asc = if all.iter().any(|name| name == "MANIFEST.asc") {
        "MANIFEST.1a2b3c4d.asc"
    } else {
        "MANIFEST.asc"
    };
    for extra in [
        "extra",
        ".hidden",
        "MANIFEST.1a2b3c4d.sig",
        asc,
        "MANIFEST.minisig2",
    ] {
        let path = release.join(extra);
        fs::write(&path, "x").expect("written");
        refused(release, policy, extra);
        fs::remove_file(path).expect("removed");
        count += 1;
    }
    verify(release, policy, 2, &Silent).expect("accepted again");
    assert!(count > 700, "{count}");
}

#[test]
fn a_release_of_another_or_mixed_with_another_is_refused() {
    let (ours, theirs) = (sample(), sample());
    let text = refusal(&[
        ours.folder.as_ref(),
        "--key".as_ref(),
        theirs.public.as_ref(),
    ]);
    assert!(
        text.contains("0 of 1 trusted signatures: signed by SHA256:"),
        "{text}"
    );
    assert!(text.contains("hint: do not use these files"), "{text}");
    // A newer release by the same key lends its files.
    let newer = ours.key.with_extension("newer");
    write_release(&newer, "2.0", vec![signer(&ours.public)]);
    must_run(
        consign()
            .arg("sign")
            .arg(&newer)
            .arg("--key")
            .arg(&ours.key),
    );
    let policy = policy(&ours.public);
    for name in names(&newer) {
        let (from, to) = (newer.join(&name), ours.folder.join(&name));
        let (theirs, sound) = (fs::read(from).expect("read"), fs::read(&to).expect("read"));
        if theirs == sound {
            continue;
        }
        fs::write(&to, theirs).expect("written");
        refused(&ours.folder, &policy, &format!("mixed: {name}"));
        fs::write(&to, sound).expect("written");
    }
}

#[test]
fn an_older_release_is_refused_when_a_newer_one_is_known() {
    let folder = temp_folder();
    let key = folder.path().join("vendor");
    let public = keygen(&key);
    let release = |version: &str| {
        let path = folder.path().join(version);
        write_release(&path, version, vec![signer(&public)]);
        must_run(consign().arg("sign").arg(&path).arg("--key").arg(&key));
        path
    };
    let (old, new) = (release("1.9"), release("1.10"));
    let state = folder.path().join("state");
    let verify = |release: &Path, more: &[&str]| {
        let mut verify = consign();
        verify
            .arg("verify")
            .arg(release)
            .arg("--key")
            .arg(&public)
            .args(more);
        run(&mut verify)
    };
    let state = state.to_str().expect("text");
    for release in [&old, &new, &new] {
        let output = verify(release, &["--state", state]);
        assert!(output.status.success(), "{}", text_of(&output));
    }
    for more in [["--state", state], ["--not-older-than", "1.10~rc1"]] {
        let output = verify(&old, &more);
        assert_eq!(output.status.code(), Some(3));
        assert!(
            text_of(&output).contains("1.9 is older than 1.10"),
            "{}",
            text_of(&output)
        );
    }
    // What was known is not forgotten because the file was damaged.
    fs::write(state, "something else\n").expect("written");
    let output = verify(&new, &["--state", state]);
    assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
}

#[test]
fn a_release_past_its_date_or_by_a_key_that_was_taken_back_is_refused() {
    let folder = temp_folder();
    let key = folder.path().join("vendor");
    let public = keygen(&key);
    let release = |name: &str, expires: i64| {
        let path = folder.path().join(name);
        write_release_for(&path, "1.0", vec![signer(&public)], None, Some(expires));
        must_run(consign().arg("sign").arg(&path).arg("--key").arg(&key));
        path
    };
    // 2001 and 2100.
    let (past, future) = (
        release("past", 1_000_000_000),
        release("future", 4_102_444_800),
    );
    let trusted: [&std::ffi::OsStr; 2] = ["--key".as_ref(), public.as_ref()];
    let text = refusal(&[&[past.as_ref()][..], &trusted].concat());
    assert!(text.contains("expired at 2001-09-09"), "{text}");
    // Where the clock is wrong, its owner says so.
    for (path, more) in [(&past, Some("--ignore-expiry")), (&future, None)] {
        let mut verify = consign();
        must_run(verify.arg("verify").arg(path).args(trusted).args(more));
    }
    let revoked: [&std::ffi::OsStr; 2] = ["--revoked".as_ref(), public.as_ref()];
    let text = refusal(&[&[future.as_ref()][..], &trusted, &revoked].concat());
    assert!(text.contains("which was revoked"), "{text}");
}
