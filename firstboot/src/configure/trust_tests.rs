//! Whose word counts, and when it is asked for.

use super::tests::{attached, code_of, found, good, signed, system, take, with_serial};
use super::*;
use crate::generation::CONFIGURED;
use crate::media::Candidate;
use crate::root::testing::Folder;

#[test]
fn a_machine_without_keys_needs_the_claim_code() {
    let system = system();
    take(&system.root, &found(vec![attached("vdb", &with_serial(3))]));
    assert_eq!(wanted_claim(&system.root), None);
    assert_eq!(
        code_of(&system, attached("vdb", &with_serial(4))),
        (code::SIGNATURE, 3)
    );
    let claim = wanted_claim(&system.root).expect("a code");
    let with_claim = |text: &str, serial| {
        let mut candidate = attached("vdb", &with_serial(serial));
        candidate.files.insert("claim.txt".into(), text.into());
        candidate
    };
    assert_eq!(
        code_of(&system, with_claim("AAAA", 4)),
        (code::SIGNATURE, 3)
    );
    assert_eq!(code_of(&system, with_claim("", 4)), (code::SIGNATURE, 3));
    let shown = format!(" {}-{}\r\n", &claim[..6], claim[6..].to_lowercase());
    assert_eq!(code_of(&system, with_claim(&shown, 4)), (0, 4));
    assert_eq!(wanted_claim(&system.root), None);
    confirm(&system.root).expect("confirmed");
    assert_eq!(
        code_of(&system, with_claim(&claim, 5)),
        (code::SIGNATURE, 4)
    );
}

#[test]
fn pinned_keys_and_the_policy_ask_for_a_signature_at_once() {
    let key = tempfile::tempdir().expect("a folder");
    let candidate = signed(key.path(), "vdb", &good());
    for (file, text) in [
        (
            "policy.toml",
            "schema = 1\nsignature = \"always\"\n".to_owned(),
        ),
        (
            "customer.pub",
            std::fs::read_to_string(key.path().join("key.pub")).expect("a key"),
        ),
    ] {
        let system = system();
        std::fs::write(system.path().join("usr/lib/consign").join(file), text).expect("written");
        let status = take(&system.root, &found(vec![attached("vdb", &good())]));
        assert_eq!(
            (status.standing, status.code),
            (Standing::Waiting, code::SIGNATURE)
        );
        let status = take(&system.root, &found(vec![candidate.clone()]));
        assert_eq!(status.standing, Standing::Starting, "{file}");
    }
}

#[test]
fn a_policy_that_the_vendor_did_not_sign_is_the_appliances_own_fault() {
    const POLICY: &[u8] = b"schema = 1\nroles = [\"web\"]\n";
    let (vendor, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let sign = |folder: &std::path::Path, text| {
        let signed = crate::trust::testing::by_ssh(folder, text, crate::trust::POLICY);
        signed.expect("ssh-keygen").1
    };
    let genuine = sign(vendor.path(), POLICY);
    let key = std::fs::read(vendor.path().join("key.pub")).expect("a key");
    let judged = |key: Option<&[u8]>, signature: Option<&[u8]>| {
        let system = system();
        let write = |name: &str, bytes: &[u8]| {
            let path = system.path().join("usr/lib/consign").join(name);
            std::fs::write(path, bytes).expect("written");
        };
        write("policy.toml", POLICY);
        if let Some(key) = key {
            write("vendor.pub", key);
        }
        if let Some(signature) = signature {
            write("policy.toml.sig", signature);
        }
        let status = take(&system.root, &found(vec![attached("vdb", &good())]));
        let lines = status.files.first().map(|file| file.lines().join("\n"));
        (
            status.code,
            lines.unwrap_or_default(),
            system.root.exists(CONFIGURED),
        )
    };
    assert_eq!(judged(None, None).0, code::NOT_YET, "no key, no need");
    assert_eq!(judged(Some(&key), Some(&genuine)).0, code::NOT_YET);
    let strangers = sign(other.path(), POLICY);
    let of_another_text = sign(vendor.path(), b"schema = 1\n");
    for (signature, part) in [
        (None, "not one of `ssh-keygen"),
        (Some(strangers), "does not know"),
        (Some(of_another_text), "not the one that was signed"),
    ] {
        let (code, lines, is_configured) = judged(Some(&key), signature.as_deref());
        assert_eq!((code, is_configured), (code::INTERNAL, false));
        assert!(
            lines.contains("policy.toml") && lines.contains(part),
            "{lines}"
        );
    }
}

/// A machine whose image pins the key in `key`.
fn pinning(key: &std::path::Path) -> Folder {
    let system = system();
    let text = std::fs::read(key.join("key.pub")).expect("a key");
    let path = system.path().join("usr/lib/consign/customer.pub");
    std::fs::write(path, text).expect("written");
    system
}

/// The code is spent by the first configuration too.
#[test]
fn a_claim_code_is_good_for_one_configuration() {
    let key = tempfile::tempdir().expect("a folder");
    signed(key.path(), "vdb", &good());
    for is_in_the_way in [false, true] {
        let system = pinning(key.path());
        if is_in_the_way {
            let keys = system.path().join("etc/ssh/authorized_keys.d/ann/x");
            std::fs::create_dir_all(keys).expect("made");
        }
        let with_claim = |claim: &str, serial| {
            let mut candidate = attached("vdb", &with_serial(serial));
            candidate.files.insert("claim.txt".into(), claim.into());
            found(vec![candidate])
        };
        let first = take(&system.root, &with_claim("", 3));
        assert_eq!(first.code, code::SIGNATURE);
        let claim = wanted_claim(&system.root).expect("a code");
        let status = take(&system.root, &with_claim(&claim, 3));
        assert_eq!(status.standing == Standing::Fenced, is_in_the_way);
        assert_eq!(wanted_claim(&system.root), None);
        let status = go_on(&system.root, &with_claim(&claim, 4)).expect("configured");
        assert_eq!(status.refused, code::SIGNATURE, "{status:?}");
        assert_ne!(status.serial, 4);
        assert_ne!(wanted_claim(&system.root), Some(claim));
    }
}

/// A stranger learns nothing of what a file should say, and the machine reads
/// nothing that a stranger wrote.
#[test]
fn nothing_is_parsed_before_it_is_known_whose_it_is() {
    let (key, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let wrong = with_serial(4).replace("title", "tilte");
    let rubbish = "= \u{1}".to_owned();
    let older = with_serial(2);
    let configured = system();
    take(
        &configured.root,
        &found(vec![signed(key.path(), "vdb", &with_serial(3))]),
    );
    let pinning = pinning(key.path());
    let demanding = system();
    let policy = demanding.path().join("usr/lib/consign/policy.toml");
    std::fs::write(policy, "schema = 1\nsignature = \"always\"\n").expect("a policy");
    // Whoever signs the first one becomes the owner, where no key is known.
    for (system, is_first, has_owner) in [
        (&configured, false, true),
        (&pinning, true, true),
        (&demanding, true, false),
    ] {
        let code = |candidate| {
            let found = found(vec![candidate]);
            let status = if is_first {
                take(&system.root, &found)
            } else {
                go_on(&system.root, &found).expect("configured")
            };
            let file = status.files.first().expect("a reason").clone();
            let reason = file.problems.first().expect("a reason").code.clone();
            let code = if is_first {
                status.code
            } else {
                status.refused
            };
            (code, reason)
        };
        let refused = (code::SIGNATURE, "signature".to_owned());
        for text in [&with_serial(4), &wrong, &rubbish, &older] {
            assert_eq!(code(attached("vdb", text)), refused, "{text}");
            if has_owner {
                let stranger = signed(other.path(), "vdb", text);
                assert_eq!(code(stranger), refused, "{text}");
            }
        }
        // The owner is told what is wrong.
        let owners = code(signed(key.path(), "vdb", &wrong));
        assert_eq!(owners.0, code::INVALID);
        assert_ne!(owners.1, "signature");
        let name = system.root.read_text("/etc/hostname", 64);
        assert!(!name.expect("read").contains('4'));
    }
}

/// Who forgets what a signature is for is given the whole command.
#[test]
fn a_signature_for_another_purpose_is_told_the_right_one() {
    let key = tempfile::tempdir().expect("a folder");
    let (_, signature) =
        crate::trust::testing::by_ssh(key.path(), good().as_bytes(), "file").expect("ssh-keygen");
    let system = pinning(key.path());
    let mut candidate = attached("vdb", &good());
    candidate.files.insert("site.toml.sig".into(), signature);
    let status = take(&system.root, &found(vec![candidate]));
    assert_eq!(status.code, code::SIGNATURE);
    let command = format!("ssh-keygen -Y sign -n {} -f KEY", crate::trust::SITE);
    let file = status.files.first().expect("a reason").lines().join("\n");
    assert!(file.contains(&command), "{file}");
}

/// The clock is asked wherever a configuration came from.
#[test]
fn a_file_from_the_command_line_may_be_out_of_date_too() {
    let system = system();
    let text = good().replace("serial = 3", "serial = 3\nnot_after = 2026-01-02");
    let candidate = attached("vdb", &text);
    let mut offer = Offer::of(&candidate).expect("an offer");
    for medium in [Some(&candidate), None] {
        offer.medium = medium;
        let refused = offer.accept(&system.root, None).expect_err("out of date");
        let lines = refused.files.iter().flat_map(FileProblems::lines);
        let lines: Vec<String> = lines.collect();
        assert!(lines[0].contains("[expired]"), "{lines:?}");
    }
}

#[test]
fn a_config_disk_outranks_other_ways() {
    let (system, key) = (system(), tempfile::tempdir().expect("a folder"));
    let disk = |device: &str, serial| Candidate {
        disk: device.into(),
        ..signed(key.path(), device, &with_serial(serial))
    };
    let other = |serial| signed(key.path(), "fw_cfg", &with_serial(serial));
    let is_told = |status: &Status| {
        let mut notes = status.notes.iter();
        notes
            .any(|note| note == "the configuration of fw_cfg is ignored: a config disk outranks it")
    };
    let status = take(&system.root, &found(vec![other(9), disk("vdb", 3)]));
    assert!(status.serial == 3 && is_told(&status), "{status:?}");
    // One that is in use already does not stand in the way.
    let all = vec![disk("vdb", 3), other(4)];
    let status = go_on(&system.root, &found(all)).expect("configured");
    assert!(status.serial == 4 && !is_told(&status), "{status:?}");
    confirm(&system.root).expect("confirmed");
    let all = vec![other(6), disk("vdc", 5)];
    let status = go_on(&system.root, &found(all)).expect("configured");
    assert!(status.serial == 5 && is_told(&status), "{status:?}");
}
