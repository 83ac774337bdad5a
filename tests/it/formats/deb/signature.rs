//! Signed lists, good and bad: our verdict, its words, and gpgv's verdict.

use consign::layer::source::deb::Certificate;
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Notation, Subpacket, SubpacketData};
use pgp::types::{Duration, Timestamp};

use super::archive::TestArchive;
use super::signer::{KEY_LIFE_PAST, NOW, SIGNED, Signer, Style, YEAR, lasts, may_sign, regular};
use crate::support::{program, run, text_of};

/// gpgv's verdict with the settings that apt gives it: whether it finds a
/// good signature, as apt asks it too. `None` when there is no gpgv.
fn gpgv_accepts(archive: &TestArchive) -> Option<bool> {
    let mut command = program("gpgv", "gpgv")?;
    command.args([
        "--status-fd",
        "1",
        "--weak-digest",
        "SHA1",
        "--weak-digest",
        "RIPEMD160",
    ]);
    command.arg("--keyring").arg(archive.keyring_path());
    command.arg(archive.path("dists/bookworm/InRelease"));
    Some(text_of(&run(&mut command)).contains("[GNUPG:] GOODSIG"))
}

#[track_caller]
fn assert_good(archive: &TestArchive) {
    archive.resolve().expect("the signature is good");
    assert_ne!(
        gpgv_accepts(archive),
        Some(false),
        "gpgv rejects what we accept"
    );
}

/// Asserts the error's whole text after the address.
#[track_caller]
fn assert_refused(archive: &TestArchive, problem: &str) {
    assert_refused_by_us(archive, problem);
    assert_ne!(
        gpgv_accepts(archive),
        Some(true),
        "gpgv accepts what we reject"
    );
}

/// As [`assert_refused`], where gpgv is known to be less strict.
#[track_caller]
fn assert_refused_by_us(archive: &TestArchive, problem: &str) {
    let error = archive.resolve().expect_err("it is not properly signed");
    let address = archive.repository().addresses[0].to_string();
    let expected = format!(
        "the package list of suite `bookworm` from {address} is not properly signed: {problem}"
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        (error.slug(), error.class().code()),
        ("source-bad-signature", 3)
    );
    assert!(error.hint().is_some());
    let lists = archive.cache().join("releases");
    assert!(!lists.exists(), "a refused list must not be kept");
}

fn signed(style: Style) -> TestArchive {
    let archive = TestArchive::new();
    let text = archive.write_lists();
    archive.publish_message(&archive.signer.sign(&text, style));
    archive
}

fn with_key(change: impl FnOnce(&mut Signer), style: Style) -> TestArchive {
    let mut archive = TestArchive::new();
    change(&mut archive.signer);
    let text = archive.write_lists();
    archive.publish_message(&archive.signer.sign(&text, style));
    archive
}

fn changed(from: &str, to: &str) -> TestArchive {
    let archive = TestArchive::new();
    let message = archive.message();
    assert!(message.contains(from), "{from} is in the message");
    archive.publish_message(&message.replacen(from, to, 1));
    archive
}

fn subkey() -> Style {
    Style {
        by_subkey: true,
        ..Style::default()
    }
}

#[test]
fn signatures_of_primary_keys_and_subkeys_count() {
    assert_good(&signed(Style::default()));
    assert_good(&signed(subkey()));
    assert_good(&signed(Style {
        hash: HashAlgorithm::Sha512,
        ..Style::default()
    }));
}

#[test]
fn a_changed_text_is_refused() {
    let archive = changed("Codename: bookworm", "Codename: b00kworm");
    let key = archive.signer.fingerprint();
    assert_refused(&archive, &format!("it is not what key {key} signed"));
}

#[test]
fn a_changed_signature_is_refused() {
    let archive = TestArchive::new();
    let message = archive.message();
    // The last line of base64, far from the packet's head.
    let lines: Vec<_> = message.lines().collect();
    let at = lines
        .iter()
        .position(|it| it.starts_with("-----END"))
        .expect("an end");
    let last = lines[..at]
        .iter()
        .rev()
        .find(|it| it.len() > 10)
        .expect("base64");
    let broken: String = last
        .chars()
        .map(|c| if c == 'A' { 'B' } else { 'A' })
        .collect();
    archive.publish_message(&message.replacen(last, &broken, 1));
    let error = archive.resolve().expect_err("it is damaged");
    assert_eq!(error.slug(), "source-bad-signature");
    assert_ne!(gpgv_accepts(&archive), Some(true));
}

#[test]
fn an_unknown_key_is_refused_and_named() {
    let archive = TestArchive::new();
    let text = archive.write_lists();
    let stranger = Signer::new(2);
    archive.publish_message(&stranger.sign(&text, Style::default()));
    let problem = format!(
        "none of its keys is in the keyring: {}",
        stranger.fingerprint()
    );
    assert_refused(&archive, &problem);
}

#[test]
fn text_outside_of_the_signature_is_refused() {
    let problem = "there is text outside of the signature";
    let begin = "-----BEGIN PGP SIGNED MESSAGE-----";
    assert_refused_by_us(&changed(begin, &format!("Suite: evil\n{begin}")), problem);
    let end = "-----END PGP SIGNATURE-----";
    assert_refused_by_us(&changed(end, &format!("{end}\nSuite: evil")), problem);
    assert_refused_by_us(&changed("\n\n", "\nSuite: evil\n\n"), problem);
}

#[test]
fn a_cut_list_is_refused() {
    let archive = TestArchive::new();
    let message = archive.message();
    for cut in [message.len() / 3, message.len() * 2 / 3, message.len() - 30] {
        archive.publish_message(&message[..cut]);
        assert_refused(&archive, "it is cut off");
    }
    archive.publish_message("Suite: bookworm\n");
    assert_refused(&archive, "it carries no signature");
}

#[test]
fn weak_hashes_are_refused() {
    let mut archive = TestArchive::new();
    // The crate makes no such signature with an Ed25519 key.
    archive.signer = Signer::with_rsa(3);
    let text = archive.write_lists();
    let key = archive.signer.fingerprint();
    archive.publish_message(&archive.signer.sign(&text, Style::default()));
    assert_good(&archive);
    std::fs::remove_dir_all(archive.cache()).expect("a cache");
    for (hash, name) in [
        (HashAlgorithm::Md5, "MD5"),
        (HashAlgorithm::Sha1, "SHA1"),
        (HashAlgorithm::Ripemd160, "RIPEMD160"),
    ] {
        let style = Style {
            hash,
            ..Style::default()
        };
        archive.publish_message(&archive.signer.sign(&text, style));
        assert_refused(&archive, &format!("key {key} signed it with {name}"));
    }
}

#[test]
fn expired_keys_are_refused() {
    let life = lasts(KEY_LIFE_PAST);
    let archive = with_key(
        |it| it.describe(vec![may_sign(true), life.clone()]),
        Style::default(),
    );
    let key = archive.signer.fingerprint();
    assert_refused(
        &archive,
        &format!("key {key} expired on 2024-09-12T12:26:40Z"),
    );
    let archive = with_key(
        |it| it.bind_subkey(vec![may_sign(true), life.clone()], true),
        subkey(),
    );
    let key = archive.signer.subkey_fingerprint();
    assert_refused(
        &archive,
        &format!("key {key} expired on 2024-09-12T12:26:40Z"),
    );
}

#[test]
fn revoked_keys_are_refused() {
    let archive = with_key(Signer::revoke, Style::default());
    let key = archive.signer.fingerprint();
    assert_refused(&archive, &format!("key {key} is revoked"));
    assert_refused(
        &with_key(Signer::revoke, subkey()),
        &format!("key {key} is revoked"),
    );
    let archive = with_key(Signer::revoke_subkey, subkey());
    let key = archive.signer.subkey_fingerprint();
    assert_refused(&archive, &format!("key {key} is revoked"));
}

#[test]
fn keys_that_may_not_sign_are_refused() {
    let archive = with_key(|it| it.describe(vec![may_sign(false)]), Style::default());
    let key = archive.signer.fingerprint();
    assert_refused_by_us(&archive, &format!("key {key} is not for signing"));
    let archive = with_key(|it| it.bind_subkey(vec![may_sign(true)], false), subkey());
    let key = archive.signer.subkey_fingerprint();
    assert_refused(
        &archive,
        &format!("key {key} does not confirm its certificate"),
    );
}

#[test]
fn signatures_that_expired_or_are_from_the_future_are_refused() {
    let life = std::time::Duration::from_secs((YEAR / 2).into());
    let life = Duration::try_from(life).expect("it fits");
    let expired = regular(SubpacketData::SignatureExpirationTime(life));
    let archive = signed(Style {
        parts: vec![expired],
        ..Style::default()
    });
    let key = archive.signer.fingerprint();
    assert_refused(&archive, &format!("the signature of key {key} has expired"));
    let late = Timestamp::from_secs(SIGNED + 2 * YEAR);
    let future = regular(SubpacketData::SignatureCreationTime(late));
    let archive = signed(Style {
        parts: vec![future],
        ..Style::default()
    });
    // gpgv has the real clock, for which it is of the past.
    assert_refused_by_us(
        &archive,
        &format!("the signature of key {key} is from the future"),
    );
}

#[test]
fn critical_parts_that_are_not_understood_are_refused() {
    let notation = Notation {
        readable: true,
        name: "limit@consign.example".into(),
        value: "not for lists".into(),
    };
    let part = Subpacket::critical(SubpacketData::Notation(notation)).expect("a small part");
    let archive = signed(Style {
        parts: vec![part],
        ..Style::default()
    });
    let key = archive.signer.fingerprint();
    let reason = "has a critical part that is not understood";
    assert_refused(&archive, &format!("the signature of key {key} {reason}"));
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let archive = TestArchive::new();
    let text = archive.write_lists();
    let ours = archive.signer.sign(&text, Style::default());
    let theirs = Signer::new(2).sign(&text, Style::default());
    // Two blocks of armor are not one: the packets are joined.
    archive.publish_message(&super::signer::joined(&theirs, &ours));
    assert_good(&archive);
}

#[test]
fn keys_may_stand_in_the_sources_or_be_named_by_fingerprint() {
    let archive = TestArchive::new();
    let mut repository = archive.repository();
    repository.keys.files.clear();
    repository.keys.inline = vec![archive.signer.armored()];
    let resolve = |repository| super::archive::resolve_from(&[repository], &archive.cache()).0;
    resolve(repository.clone()).expect("the key is the right one");
    repository.keys.fingerprints = vec![archive.signer.fingerprint()];
    resolve(repository.clone()).expect("the key is named");
    repository.keys.fingerprints = vec![Signer::new(2).fingerprint()];
    let error = resolve(repository).expect_err("another key is named");
    assert_eq!(error.slug(), "source-bad-signature");
}

#[test]
fn a_keyring_that_is_none_is_named() {
    let archive = TestArchive::new();
    std::fs::write(archive.keyring_path(), b"no keys here").expect("write");
    let error = archive.resolve().expect_err("not a keyring");
    assert_eq!(error.slug(), "source-bad-keyring");
    assert!(
        error
            .to_string()
            .contains("keyring.gpg` is not an OpenPGP keyring: "),
        "{error}"
    );
}

#[test]
fn a_detached_signature_of_a_subkey_keeps_its_name_in_its_one_form() {
    let signer = Signer::new(7);
    let certificate = Certificate::from(signer.certificate.clone());
    let message = b"a manifest\n";
    let signature = signer.detach_by_subkey(message);
    let text = certificate.canonical(&signature, message).expect("sound");
    let verdict = certificate.judge(&text, message, Some(NOW));
    assert_eq!(verdict, Ok(()), "{text}");
}
