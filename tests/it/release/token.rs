//! A key that never leaves its PKCS#11 token, `SoftHSM`'s: the token signs bytes,
//! and `consign attach` makes an SSHSIG of them. (`SoftHSM` signs no Ed25519 in
//! parts, so a whole manifest is too long for it; these are few bytes.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use consign::release::manifest::Container;

use super::{signer, write_release};
use crate::support::{TestFolder, consign, must_run, program, run, skip, temp_folder, text_of};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const KEY: [&str; 2] = ["--id", "01"];

/// A token with one Ed25519 key.
struct Token {
    folder: TestFolder,
}

impl Token {
    /// `None`, said loudly, without `SoftHSM` and `OpenSC`.
    fn new() -> Option<Self> {
        if !Path::new(MODULE).is_file() {
            skip("no softhsm2: run ci/install");
            return None;
        }
        program("pkcs11-tool", "opensc")?;
        let token = Self {
            folder: temp_folder(),
        };
        let tokens = token.path("tokens");
        fs::create_dir(&tokens).expect("a folder");
        let text = format!("directories.tokendir = {}\n", tokens.display());
        fs::write(token.path("softhsm2.conf"), text).expect("written");
        token.ask(&["--init-token", "--label", "vendor", "--so-pin", "123456"]);
        let officer = ["--login-type", "so", "--so-pin", "123456"];
        let pin = ["--init-pin", "--new-pin", "1234"];
        token.with_login(&[&officer[..], &pin].concat());
        token.as_user(&["--keypairgen", "--key-type", "EC:edwards25519"]);
        Some(token)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ask(&self, args: &[&str]) {
        let mut tool = program("pkcs11-tool", "opensc").expect("as before");
        tool.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        must_run(tool.args(["--module", MODULE]).args(args));
    }

    fn with_login(&self, args: &[&str]) {
        self.ask(&[&["--token-label", "vendor", "--login"][..], args].concat());
    }

    fn as_user(&self, args: &[&str]) {
        self.with_login(&[&["--pin", "1234"][..], &KEY, args].concat());
    }

    /// The public half, as PEM.
    fn public(&self) -> PathBuf {
        let path = self.path("token.pub");
        let to = path.to_str().expect("text");
        self.as_user(&["--read-object", "--type", "pubkey", "-o", to]);
        path
    }

    fn sign(&self, file: &Path) -> PathBuf {
        let path = self.path("signature");
        let (from, to) = (file.to_str().expect("text"), path.to_str().expect("text"));
        self.as_user(&["--sign", "--mechanism", "EDDSA", "-i", from, "-o", to]);
        path
    }
}

#[test]
fn a_pkcs11_token_signs_a_release() {
    let Some(token) = Token::new() else { return };
    let public = token.public();
    let release = token.path("release");
    let mut line = signer(&public);
    line.containers = vec![Container::SshSig];
    write_release(&release, "1.0", vec![line]);
    let to_sign = token.path("to-sign");
    let mut ask = consign();
    must_run(ask.arg("sign").arg(&release).arg("--to-sign").arg(&to_sign));
    let mut attach = consign();
    attach.arg("attach").arg(&release).arg(token.sign(&to_sign));
    let text = text_of(&run(&mut attach));
    assert!(text.contains("64 bytes do not say whose"), "{text}");
    must_run(attach.arg("--key").arg(&public));
    // Of another text it is refused.
    let mut attach = consign();
    attach.arg("attach").arg(&release).arg(token.sign(&public));
    let other = run(attach.arg("--key").arg(&public));
    assert_eq!(other.status.code(), Some(3), "{}", text_of(&other));
    let mut verify = consign();
    must_run(verify.arg("verify").arg(&release).arg("--key").arg(&public));
    let signers = token.path("signers");
    let mut show = consign();
    show.arg("key").arg(&public);
    let form = must_run(show.args(["--as", "allowed-signers"]));
    fs::write(&signers, form.stdout).expect("written");
    let Some(mut judge) = program("ssh-keygen", "openssh-client") else {
        return;
    };
    judge.args([
        "-Y",
        "verify",
        "-I",
        "release",
        "-n",
        "consign-release",
        "-f",
    ]);
    judge
        .arg(&signers)
        .arg("-s")
        .arg(release.join("MANIFEST.sig"));
    let manifest = fs::File::open(release.join("MANIFEST")).expect("open");
    must_run(judge.stdin(Stdio::from(manifest)));
}
