//! The signature by gpg, judged by gpgv; and by us, more strictly.
#![expect(clippy::disallowed_types, reason = "tests call foreign programs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use consign::layer::source::deb::Certificate;
use consign::release::openpgp::certificate;

use super::{keygen, refusal, signer, write_release_for};
use crate::support::{TestFolder, consign, must_run, program, run, temp_folder, text_of};

/// A vendor with an Ed25519 key and a gpg of their own.
pub(super) struct Vendor {
    pub(super) folder: TestFolder,
    pub(super) key: PathBuf,
    pub(super) public: PathBuf,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        // The agent that gpg started for this home alone.
        if let Some(mut end) = program("gpgconf", "gnupg") {
            run(end.env("GNUPGHOME", self.home()).args(["--kill", "all"]));
        }
    }
}

impl Vendor {
    /// `None`, said loudly, without gpg.
    pub(super) fn new() -> Option<Self> {
        let folder = temp_folder();
        let key = folder.path().join("vendor");
        let public = keygen(&key);
        let vendor = Self {
            folder,
            key,
            public,
        };
        fs::create_dir(vendor.home()).expect("a folder");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(vendor.home(), mode).expect("our folder");
        vendor.new_key("vendor@example.com", "ed25519")?;
        Some(vendor)
    }

    fn home(&self) -> PathBuf {
        self.path("gnupg")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn gpg(&self) -> Option<Command> {
        let mut gpg = program("gpg", "gnupg")?;
        gpg.env("GNUPGHOME", self.home());
        gpg.args(["--batch", "--quiet"]);
        Some(gpg)
    }

    /// Makes a key without a passphrase.
    pub(super) fn new_key(&self, user: &str, kind: &str) -> Option<()> {
        must_run(
            self.gpg()?
                .args(["--passphrase", "", "--quick-generate-key"])
                .args([user, kind, "sign", "1y"]),
        );
        Some(())
    }

    /// The public half of `user`'s key, as a file.
    pub(super) fn export(&self, user: &str) -> PathBuf {
        let path = self.path(&format!("{user}.gpg"));
        let mut gpg = self.gpg().expect("as before");
        must_run(
            gpg.arg("--yes")
                .arg("--output")
                .arg(&path)
                .args(["--export", user]),
        );
        path
    }

    pub(super) fn consign(&self) -> Command {
        let mut consign = consign();
        consign.env("GNUPGHOME", self.home());
        consign
    }

    /// A release for both keys, signed by both.
    pub(super) fn release(&self, name: &str, user: &str) -> PathBuf {
        let release = self.unsigned(name, user);
        let mut sign = self.consign();
        sign.arg("sign").arg(&release).arg("--key").arg(&self.key);
        must_run(sign.args(["--gpg-key", user]));
        release
    }

    fn unsigned(&self, name: &str, user: &str) -> PathBuf {
        let release = self.path(name);
        let key = certificate(&self.export(user)).expect("a certificate");
        write_release_for(
            &release,
            "1.0",
            vec![signer(&self.public)],
            Some(&key),
            None,
        );
        release
    }
}

const USER: &str = "vendor@example.com";

fn gpgv(release: &Path, text: &Path) -> Option<Command> {
    let mut gpgv = program("gpgv", "gpgv")?;
    gpgv.arg("--keyring").arg(release.join("openpgp.gpg"));
    gpgv.arg(release.join("MANIFEST.asc")).arg(text);
    Some(gpgv)
}

#[test]
fn gpgv_accepts_what_gpg_signs_for_us() {
    let Some(vendor) = Vendor::new() else { return };
    vendor
        .new_key("rsa@example.com", "rsa3072")
        .expect("as before");
    for user in [USER, "rsa@example.com"] {
        let release = vendor.release(user, user);
        let manifest = release.join("MANIFEST");
        let Some(mut judge) = gpgv(&release, &manifest) else {
            return;
        };
        must_run(&mut judge);
        let changed = vendor.path("changed");
        let mut text = fs::read(&manifest).expect("read");
        text.push(b'\n');
        fs::write(&changed, text).expect("written");
        let refused = run(&mut gpgv(&release, &changed).expect("as before"));
        assert!(!refused.status.success(), "gpgv accepts another manifest");
        // The customer's side: with either key, or with both.
        let pgp = vendor.export(user);
        for both in [true, false] {
            let mut verify = consign();
            verify
                .arg("verify")
                .arg(&release)
                .arg("--gpg-key")
                .arg(&pgp);
            if both {
                verify.arg("--key").arg(&vendor.public);
            }
            must_run(&mut verify);
        }
        let mut verify = consign();
        must_run(
            verify
                .arg("verify")
                .arg(&release)
                .arg("--key")
                .arg(&vendor.public),
        );
    }
}

#[test]
fn a_signature_by_gpg_elsewhere_is_attached_in_its_one_form() {
    let Some(vendor) = Vendor::new() else { return };
    let release = vendor.unsigned("release", USER);
    must_run(
        consign()
            .arg("sign")
            .arg(&release)
            .arg("--key")
            .arg(&vendor.key),
    );
    let trusted = vendor.export(USER);
    let missing = refusal(&[release.as_ref(), "--gpg-key".as_ref(), trusted.as_ref()]);
    assert!(missing.contains("the OpenPGP signature of"), "{missing}");
    let signature = vendor.path("elsewhere.asc");
    let mut gpg = vendor.gpg().expect("as before");
    must_run(
        gpg.args(["--armor", "--comment", "by hand", "--local-user", USER])
            .arg("--output")
            .arg(&signature)
            .arg("--detach-sign")
            .arg(release.join("MANIFEST")),
    );
    let attached = must_run(consign().arg("attach").arg(&release).arg(&signature));
    let key = certificate(&trusted).expect("a certificate");
    assert!(text_of(&attached).contains(&key.fingerprint()));
    let text = fs::read_to_string(release.join("MANIFEST.asc")).expect("read");
    assert!(!text.contains("by hand"), "what is not signed is left out");
    must_run(&mut gpgv(&release, &release.join("MANIFEST")).expect("with gpg"));
    // The same with the comment is refused, though gpgv takes it.
    fs::copy(&signature, release.join("MANIFEST.asc")).expect("copied");
    must_run(&mut gpgv(&release, &release.join("MANIFEST")).expect("with gpg"));
    let slack = refusal(&[release.as_ref(), "--key".as_ref(), vendor.public.as_ref()]);
    assert!(slack.contains("something was added to its text"), "{slack}");
    // One over something else does not fit.
    let other = vendor.path("other");
    fs::write(&other, "something else\n").expect("written");
    let mut gpg = vendor.gpg().expect("as before");
    must_run(gpg.args(["--armor", "--detach-sign"]).arg(&other));
    let output = run(consign()
        .arg("attach")
        .arg(&release)
        .arg(vendor.path("other.asc")));
    assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
    let text = text_of(&output);
    assert!(text.contains("it is not what key"), "{text}");
}

#[test]
fn only_the_openpgp_key_that_is_trusted_counts() {
    let Some(vendor) = Vendor::new() else { return };
    let other = "other@example.com";
    vendor.new_key(other, "ed25519").expect("as before");
    let release = vendor.release("release", other);
    let trusted = vendor.export(USER);
    let ask = |release: &Path, key: &Path| {
        refusal(&[
            release.as_ref(),
            "--key".as_ref(),
            vendor.public.as_ref(),
            "--gpg-key".as_ref(),
            key.as_ref(),
        ])
    };
    let text = ask(&release, &trusted);
    assert!(text.contains("is to sign it, and not"), "{text}");
    let plain = vendor.path("plain");
    write_release_for(&plain, "1.0", vec![signer(&vendor.public)], None, None);
    let mut sign = consign();
    must_run(sign.arg("sign").arg(&plain).arg("--key").arg(&vendor.key));
    let text = ask(&plain, &trusted);
    assert!(text.contains("no OpenPGP key signed it"), "{text}");
    // Revoked since: the newer certificate from elsewhere says so.
    let key = certificate(&vendor.export(other)).expect("a certificate");
    revoke(&vendor, &key);
    let text = ask(&release, &vendor.export(other));
    assert!(text.contains("is revoked"), "{text}");
    assert!(
        text.contains("take the vendor's current certificate"),
        "{text}"
    );
    // Whoever trusts the Ed25519 key alone does not depend on that.
    let mut verify = consign();
    must_run(
        verify
            .arg("verify")
            .arg(&release)
            .arg("--key")
            .arg(&vendor.public),
    );
}

/// By the revocation that gpg writes with every new key.
fn revoke(vendor: &Vendor, key: &Certificate) {
    let name = format!("openpgp-revocs.d/{}.rev", key.fingerprint());
    let text = fs::read_to_string(vendor.home().join(name)).expect("gpg made it");
    let path = vendor.path("revocation");
    // The colon keeps it from being imported by accident.
    fs::write(&path, text.replace(":-----BEGIN", "-----BEGIN")).expect("written");
    must_run(vendor.gpg().expect("as before").arg("--import").arg(&path));
}

#[test]
fn a_key_that_gpg_does_not_have_is_said() {
    let Some(vendor) = Vendor::new() else { return };
    vendor
        .new_key("vendor-two@example.com", "ed25519")
        .expect("as before");
    let release = vendor.unsigned("release", USER);
    let sign = |name: &str| {
        let mut sign = vendor.consign();
        run(sign.arg("sign").arg(&release).args(["--gpg-key", name]))
    };
    let nobody = sign("nobody@example.com");
    assert_eq!(nobody.status.code(), Some(4), "{}", text_of(&nobody));
    let several = sign("vendor");
    let text = text_of(&several);
    assert_eq!(several.status.code(), Some(2), "{text}");
    assert!(
        text.contains("gpg has 2 secret keys called `vendor`"),
        "{text}"
    );
    let mut sign = vendor.consign();
    sign.arg("sign").arg(&release).args(["--gpg-key", USER]);
    let dated = run(sign.env("SOURCE_DATE_EPOCH", "yesterday"));
    let text = text_of(&dated);
    assert_eq!(dated.status.code(), Some(2), "{text}");
    assert!(
        text.contains("`SOURCE_DATE_EPOCH` is `yesterday`"),
        "{text}"
    );
    assert!(!release.join("MANIFEST.asc").exists());
}
