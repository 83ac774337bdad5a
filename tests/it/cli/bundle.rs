//! A vendor's bundle: what tar and ssh-keygen say of it, and the bytes that
//! the agent's own test unpacks (`tests/golden/bundle.vab`).

use consign::factory::{BundleName, write_bundle};
use consign::sign::{SecretKey, Signer};

use crate::support::{consign, golden, must_run, program, run, temp_folder, text_of};

#[test]
fn a_bundle_is_a_signed_tar_with_the_same_bytes_every_time() {
    let folder = temp_folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("files/www")).expect("folders");
    std::fs::write(path("files/www/index.html"), "<p>2</p>\n").expect("written");
    std::fs::write(path("files/empty"), "").expect("written");
    let name = BundleName {
        name: "site".into(),
        version: "2.0".into(),
        role: Some("web".into()),
    };
    let signer = Signer::File(SecretKey::from_seed(&[7; 32]));
    let out = path("site.vab");
    let made = write_bundle(&path("files"), &name, &signer, &out).expect("made");
    assert_eq!(made.files, 2);
    let bytes = std::fs::read_to_string(&out).expect("ASCII and zeros");
    golden("bundle.vab", &bytes);
    golden("bundle.pub", &signer.public().to_openssh("vendor"));

    let mut tar = program("tar", "tar").expect("tar is everywhere");
    let listed = must_run(tar.arg("-tf").arg(&out));
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        "manifest.toml\nmanifest.toml.sig\nfiles/empty\nfiles/www/index.html\n"
    );
    let mut tar = program("tar", "tar").expect("tar is everywhere");
    must_run(tar.arg("-C").arg(folder.path()).arg("-xf").arg(&out));
    let Some(mut verify) = program("ssh-keygen", "openssh-client") else {
        return;
    };
    let allowed = format!("vendor {}", signer.public().to_openssh("vendor"));
    std::fs::write(path("allowed"), allowed).expect("written");
    verify
        .args(["-Y", "verify", "-n", "consign-bundle", "-I", "vendor", "-f"])
        .arg(path("allowed"))
        .arg("-s")
        .arg(path("manifest.toml.sig"))
        .stdin(std::fs::File::open(path("manifest.toml")).expect("the manifest"));
    must_run(&mut verify);
}

#[test]
fn what_cannot_go_into_a_bundle_is_refused() {
    let folder = temp_folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("files")).expect("a folder");
    std::os::unix::fs::symlink("/etc/passwd", path("files/link")).expect("a link");
    must_run(consign().args(["keygen", "-o"]).arg(path("vendor")));
    let mut bundle = consign();
    bundle.args(["bundle", "--name", "site", "--version", "1", "--sign"]);
    bundle
        .arg(path("vendor"))
        .arg("-o")
        .arg(path("site.vab"))
        .arg(path("files"));
    let output = run(&mut bundle);
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is neither a file nor a folder"), "{said}");
    assert!(!path("site.vab").exists());
}

/// What the appliance would refuse is refused here, with what is too much.
#[test]
fn the_appliances_limits_of_a_bundle_are_kept() {
    let folder = temp_folder();
    let path = |name: &str| folder.path().join(name);
    let signer = Signer::File(SecretKey::from_seed(&[7; 32]));
    let refused = |name: &str, version: &str, role: Option<&str>, files: &str| {
        let name = BundleName {
            name: name.into(),
            version: version.into(),
            role: role.map(str::to_owned),
        };
        let out = path("x.vab");
        let error = write_bundle(&path(files), &name, &signer, &out).expect_err("refused");
        assert!(!out.exists() && error.hint().is_some());
        format!("{}: {error}", error.slug())
    };
    std::fs::create_dir(path("few")).expect("a folder");
    for (name, version, role, part) in [
        ("Site", "1", None, "bundle-name: the name of a bundle"),
        ("site", "1 0", None, "bundle-name: the version of a bundle"),
        (
            "site",
            "1",
            Some("we\"b"),
            "bundle-name: the role of a bundle",
        ),
    ] {
        let said = refused(name, version, role, "few");
        assert!(said.starts_with(part), "{said}");
    }
    // A tar's header divides a path at a slash: none stands where it must here.
    let long = "a".repeat(120);
    std::fs::create_dir(path("long")).expect("a folder");
    std::fs::write(path("long").join(&long), "").expect("written");
    let said = refused("site", "1", None, "long");
    assert!(said.contains("has a path that is too long"), "{said}");
    // 4096 files are allowed, and their list may not be longer than it is read.
    let below = path("many").join("b".repeat(58)).join("c".repeat(88));
    std::fs::create_dir_all(&below).expect("folders");
    for number in 0..4096 {
        std::fs::write(below.join(format!("{number:045}")), "").expect("written");
    }
    let said = refused("site", "1", None, "many");
    assert!(
        said.starts_with("medium-too-much: the list of the bundle's files has"),
        "{said}"
    );
    // Before anything of it is read.
    std::fs::create_dir(path("large")).expect("a folder");
    let file = std::fs::File::create(path("large/a")).expect("a file");
    file.set_len((4 << 30) + 1).expect("a hole");
    let said = refused("site", "1", None, "large");
    assert!(
        said.starts_with("medium-too-much: the files of the bundle have 4294967297 bytes"),
        "{said}"
    );
}
