//! Every signature of a release, judged by the tool that it is for, and by
//! that tool again after a change.
#![expect(clippy::disallowed_types, reason = "tests call foreign programs")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{keygen, refusal, sample, signer, write_release};
use crate::support::{consign, must_run, program, run, temp_folder, text_of};

/// `program` says yes to the manifest, and no to a longer one.
fn judges(folder: &Path, mut ask: impl FnMut(&Path) -> Command) {
    let manifest = folder.join("MANIFEST");
    must_run(&mut ask(&manifest));
    let changed = folder.with_extension("changed");
    let mut text = fs::read(&manifest).expect("read");
    text.extend_from_slice(b"file x\n");
    fs::write(&changed, text).expect("written");
    let refused = run(&mut ask(&changed));
    assert!(!refused.status.success(), "accepts a changed manifest");
    fs::remove_file(&changed).expect("removed");
}

#[test]
fn ssh_keygen_accepts_key_and_signature() {
    let sample = sample();
    let Some(mut list) = program("ssh-keygen", "openssh-client") else {
        return;
    };
    let listed = must_run(list.arg("-lf").arg(&sample.public));
    let shown = must_run(consign().arg("key").arg(&sample.public));
    let fingerprint = String::from_utf8_lossy(&shown.stdout).trim().to_owned();
    assert!(text_of(&listed).contains(&fingerprint), "{fingerprint}");
    // It reads the secret half too, and finds the same public one.
    let derived = must_run(
        program("ssh-keygen", "openssh-client")
            .expect("is there")
            .arg("-yf")
            .arg(&sample.key),
    );
    let public = fs::read_to_string(&sample.public).expect("read");
    assert_eq!(text_of(&derived), public);
    let signers = sample.key.with_extension("signers");
    let form = must_run(
        consign()
            .arg("key")
            .arg(&sample.public)
            .args(["--as", "allowed-signers"]),
    );
    fs::write(&signers, form.stdout).expect("written");
    judges(&sample.folder, |manifest| {
        let mut verify = program("ssh-keygen", "openssh-client").expect("is there");
        verify.args([
            "-Y",
            "verify",
            "-I",
            "release",
            "-n",
            "consign-release",
            "-f",
        ]);
        verify
            .arg(&signers)
            .arg("-s")
            .arg(sample.folder.join("MANIFEST.sig"));
        verify.stdin(Stdio::from(fs::File::open(manifest).expect("open")));
        verify
    });
}

#[test]
fn minisign_accepts_the_signature() {
    let sample = sample();
    if program("minisign", "minisign").is_none() {
        return;
    }
    let key = sample.key.with_extension("minisign");
    let form = must_run(
        consign()
            .arg("key")
            .arg(&sample.public)
            .args(["--as", "minisign"]),
    );
    fs::write(&key, form.stdout).expect("written");
    judges(&sample.folder, |manifest| {
        let mut verify = program("minisign", "minisign").expect("is there");
        verify.arg("-V").arg("-p").arg(&key).arg("-m").arg(manifest);
        verify.arg("-x").arg(sample.folder.join("MANIFEST.minisig"));
        verify
    });
}

#[test]
fn openssl_accepts_the_signature() {
    let sample = sample();
    if program("openssl", "openssl").is_none() {
        return;
    }
    let key = sample.key.with_extension("pem");
    let form = must_run(
        consign()
            .arg("key")
            .arg(&sample.public)
            .args(["--as", "pem"]),
    );
    fs::write(&key, form.stdout).expect("written");
    judges(&sample.folder, |manifest| {
        let mut verify = program("openssl", "openssl").expect("is there");
        verify
            .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"])
            .arg(&key);
        verify
            .arg("-in")
            .arg(manifest)
            .arg("-sigfile")
            .arg(sample.folder.join("MANIFEST.ed25519"));
        verify
    });
}

/// Does something to the release.
type Act<'a> = Box<dyn Fn() + 'a>;

#[test]
fn a_customer_without_consign_verifies_with_a_script() {
    let sample = sample();
    // The script comes from elsewhere, as the customer is told.
    let script = sample.key.with_extension("sh");
    fs::copy(sample.folder.join("verify.sh"), &script).expect("copied");
    assert!(fs::read_to_string(&script).expect("read").lines().count() <= 20);
    let ask = || {
        let mut sh = program("sh", "dash").expect("a shell");
        sh.arg(&script).arg(&sample.public).arg(&sample.folder);
        run(&mut sh)
    };
    let output = ask();
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(
        text_of(&output).contains("verified: wiki 1.0"),
        "{}",
        text_of(&output)
    );
    let disk = sample.folder.join("wiki.qcow2");
    let extra = sample.folder.join("extra");
    let damages: [(&str, Act<'_>, Act<'_>); 4] = [
        (
            "is missing or was changed",
            Box::new(|| fs::rename(&disk, script.with_extension("away")).expect("moved")),
            Box::new(|| fs::rename(script.with_extension("away"), &disk).expect("moved")),
        ),
        (
            "files that are not listed: extra",
            Box::new(|| fs::write(&extra, "x").expect("written")),
            Box::new(|| fs::remove_file(&extra).expect("removed")),
        ),
        (
            "no regular file",
            Box::new(|| std::os::unix::fs::symlink("wiki.qcow2", &extra).expect("linked")),
            Box::new(|| fs::remove_file(&extra).expect("removed")),
        ),
        (
            "the signature does not fit",
            Box::new(|| {
                let path = sample.folder.join("MANIFEST");
                let text = fs::read_to_string(&path).expect("read");
                fs::write(&path, text.replacen("version 1.0", "version 1.1", 1)).expect("written");
            }),
            Box::new(|| {}),
        ),
    ];
    for (expected, damage, mend) in damages {
        damage();
        let output = ask();
        assert_eq!(output.status.code(), Some(3), "{}", text_of(&output));
        assert!(text_of(&output).contains(expected), "{}", text_of(&output));
        mend();
    }
}

#[test]
fn a_signature_made_elsewhere_is_attached() {
    let folder = temp_folder();
    let (release, key) = (folder.path().join("release"), folder.path().join("vendor"));
    let public = keygen(&key);
    write_release(&release, "1.0", Vec::new());
    let Some(mut ssh) = program("ssh-keygen", "openssh-client") else {
        return;
    };
    let copy = folder.path().join("MANIFEST");
    fs::copy(release.join("MANIFEST"), &copy).expect("copied");
    must_run(
        ssh.args(["-Y", "sign", "-n", "consign-release", "-f"])
            .arg(&key)
            .arg(&copy),
    );
    let signature = folder.path().join("MANIFEST.sig");
    must_run(consign().arg("attach").arg(&release).arg(&signature));
    must_run(
        consign()
            .arg("verify")
            .arg(&release)
            .arg("--key")
            .arg(&public),
    );
    // One for another purpose does not fit.
    let copy = folder.path().join("other");
    fs::copy(release.join("MANIFEST"), &copy).expect("copied");
    let mut ssh = program("ssh-keygen", "openssh-client").expect("is there");
    must_run(
        ssh.args(["-Y", "sign", "-n", "file", "-f"])
            .arg(&key)
            .arg(&copy),
    );
    let output = run(consign()
        .arg("attach")
        .arg(&release)
        .arg(folder.path().join("other.sig")));
    assert_eq!(output.status.code(), Some(3));
    let text = text_of(&output);
    assert!(
        text.contains("the signature is for `file`, not for `consign-release`"),
        "{text}"
    );
}

#[test]
fn an_ssh_agent_signs_in_every_form() {
    let folder = temp_folder();
    let (release, key) = (folder.path().join("release"), folder.path().join("vendor"));
    let public = keygen(&key);
    write_release(&release, "1.0", vec![signer(&public)]);
    let socket = folder.path().join("agent");
    let Some(mut agent) = program("ssh-agent", "openssh-client") else {
        return;
    };
    let mut agent = agent
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .expect("an agent");
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let sign = |socket: &Path| {
        let mut sign = consign();
        sign.arg("sign").arg(&release).arg("--key").arg(&public);
        sign.env("SSH_AUTH_SOCK", socket);
        run(&mut sign)
    };
    let empty = text_of(&sign(&socket));
    let mut add = program("ssh-add", "openssh-client").expect("with ssh-agent");
    let added = run(add.env("SSH_AUTH_SOCK", &socket).arg("-q").arg(&key));
    let signed = sign(&socket);
    agent.kill().expect("our own agent");
    agent.wait().expect("ended");
    assert!(
        empty.contains("the SSH agent does not sign with SHA256:"),
        "{empty}"
    );
    assert!(added.status.success(), "{}", text_of(&added));
    assert!(signed.status.success(), "{}", text_of(&signed));
    must_run(
        consign()
            .arg("verify")
            .arg(&release)
            .arg("--key")
            .arg(&public),
    );
    let gone = text_of(&sign(&folder.path().join("nobody")));
    assert!(gone.contains("cannot talk to the SSH agent"), "{gone}");
}

#[test]
fn two_of_three_keys_have_to_sign() {
    let folder = temp_folder();
    let release = folder.path().join("release");
    let keys: Vec<_> = ["a", "b", "c"]
        .map(|name| folder.path().join(name))
        .to_vec();
    let publics: Vec<_> = keys.iter().map(|key| keygen(key)).collect();
    write_release(&release, "1.0", Vec::new());
    let verify = |threshold: &str| {
        let mut verify = consign();
        verify
            .arg("verify")
            .arg(&release)
            .args(["--threshold", threshold]);
        for public in &publics {
            verify.arg("--key").arg(public);
        }
        run(&mut verify)
    };
    must_run(
        consign()
            .arg("sign")
            .arg(&release)
            .arg("--key")
            .arg(&keys[0]),
    );
    let one = verify("2");
    assert_eq!(one.status.code(), Some(3));
    assert!(
        text_of(&one).contains("1 of 2 trusted signatures"),
        "{}",
        text_of(&one)
    );
    must_run(
        consign()
            .arg("sign")
            .arg(&release)
            .arg("--key")
            .arg(&keys[2]),
    );
    let two = verify("2");
    assert!(two.status.success(), "{}", text_of(&two));
    assert_eq!(verify("3").status.code(), Some(3));
    assert_eq!(verify("4").status.code(), Some(2));
}

#[test]
fn a_new_key_is_trusted_by_the_old_one_s_word() {
    let folder = temp_folder();
    let release = folder.path().join("release");
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let old_public = keygen(&old);
    let mut replace = consign();
    must_run(
        replace
            .args(["keygen", "-o"])
            .arg(&new)
            .arg("--replaces")
            .arg(&old),
    );
    write_release(&release, "1.0", vec![signer(&new.with_extension("pub"))]);
    must_run(consign().arg("sign").arg(&release).arg("--key").arg(&new));
    let text = refusal(&[release.as_ref(), "--key".as_ref(), old_public.as_ref()]);
    assert!(
        text.contains("0 of 1 trusted signatures: signed by SHA256:"),
        "{text}"
    );
    let rotation = new.with_extension("rotation");
    let mut verify = consign();
    verify
        .arg("verify")
        .arg(&release)
        .arg("--key")
        .arg(&old_public);
    must_run(verify.arg("--rotation").arg(&rotation));
    let text = refusal(&[
        release.as_ref(),
        "--key".as_ref(),
        old_public.as_ref(),
        "--rotation".as_ref(),
        rotation.as_ref(),
        "--revoked".as_ref(),
        new.with_extension("pub").as_ref(),
    ]);
    assert!(text.contains("which was revoked"), "{text}");
}
