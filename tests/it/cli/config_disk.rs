//! What goes onto a config disk beside the configuration, judged by the
//! programs that customers have: ssh-keygen, age, mtools, fsck.vfat.

use std::path::Path;

use consign::sign::age::{CHANCE, Recipient, encrypt};

use crate::support::appliance::appliance;
use crate::support::{consign, must_run, program, repo_root, run, temp_folder, text_of};

const SITE: &str = "schema = 1\n[config]\nid = \"acme\"\nserial = 1\n\
    [license]\nfile = \"product.key\"\n[secret.db]\nfrom = \"secrets.age\"\nentry = \"password\"\n";

/// Writes the inputs, a key of age's and one of ssh-keygen's; the arguments
/// that make the disk of them.
fn inputs(folder: &Path) -> Option<Vec<String>> {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    write("site.toml", SITE);
    write("product.key", "LICENCE\n");
    write("secrets.toml", "password = \"CANARY\"\n");
    let made = must_run(
        program("age-keygen", "age")?
            .args(["-o"])
            .arg(folder.join("identity")),
    );
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    let recipient = said
        .trim()
        .rsplit(' ')
        .next()
        .expect("a recipient")
        .to_owned();
    let blank = "\n".repeat(9000);
    write(
        "request.toml",
        &format!("kind = \"consign-request\"\nrecipient = \"{recipient}\"\n{blank}"),
    );
    must_run(
        program("ssh-keygen", "openssh-client")?
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "owner", "-f"])
            .arg(folder.join("owner")),
    );
    let path = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    std::fs::create_dir(folder.join("roles")).expect("a folder");
    let words = [
        ["config", "disk"].map(str::to_owned).to_vec(),
        vec![path("site.toml"), "--roles".into(), path("roles")],
        vec![
            "--sign".into(),
            path("owner"),
            "--license".into(),
            path("product.key"),
        ],
        vec!["--secrets".into(), path("secrets.toml")],
        vec!["--encrypt".into(), path("request.toml")],
        vec!["--output".into(), path("site.img")],
    ];
    Some(words.concat())
}

fn inside(image: &Path, name: &str) -> Option<Vec<u8>> {
    let mut mtype = program("mtype", "mtools")?;
    mtype.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image);
    Some(must_run(mtype.arg(format!("::{name}"))).stdout)
}

#[test]
fn signature_secrets_and_licence_are_what_other_programs_take() {
    let folder = temp_folder();
    let Some(words) = inputs(folder.path()) else {
        return;
    };
    let made = must_run(consign().args(&words));
    let path = |name: &str| folder.path().join(name);
    let image = path("site.img");
    for secret in ["CANARY", "LICENCE"] {
        assert!(!text_of(&made).contains(secret));
    }
    if let Some(mut fsck) = program("fsck.vfat", "dosfstools") {
        must_run(fsck.arg("-n").arg(&image));
    }
    let Some(signature) = inside(&image, "site.toml.sig") else {
        return;
    };
    std::fs::write(path("signature"), signature).expect("written");
    let public = std::fs::read_to_string(path("owner.pub")).expect("the public key");
    std::fs::write(path("allowed"), format!("owner {public}")).expect("written");
    let mut verify = program("ssh-keygen", "openssh-client").expect("it made the key");
    verify
        .args(["-Y", "verify", "-n", "consign-config", "-I", "owner", "-f"])
        .arg(path("allowed"))
        .arg("-s")
        .arg(path("signature"))
        .stdin(std::fs::File::open(path("site.toml")).expect("the configuration"));
    must_run(&mut verify);
    let encrypted = inside(&image, "secrets.age").expect("mtools is there");
    std::fs::write(path("secrets.age"), encrypted).expect("written");
    let mut age = program("age", "age").expect("age-keygen was there");
    age.args(["-d", "-i"])
        .arg(path("identity"))
        .arg(path("secrets.age"));
    assert_eq!(must_run(&mut age).stdout, b"password = \"CANARY\"\n");
    assert_eq!(
        inside(&image, "license/product.key").as_deref(),
        Some(b"LICENCE\n".as_slice())
    );
    let support = inside(&image, "support.tar").expect("mtools is there");
    assert!(support.len() == 1 << 20 && support.iter().all(|byte| *byte == 0));
}

/// The README's words about a customer's first configuration.
fn five_minutes() -> String {
    let readme = std::fs::read_to_string(repo_root().join("README.md")).expect("the README");
    let (_, rest) = readme
        .split_once("## A customer's five minutes")
        .expect("the section");
    let (section, _) = rest.split_once("\n## ").expect("the next section");
    section.to_owned()
}

#[test]
fn the_commands_of_the_readme_hold_for_its_configuration() {
    let text = five_minutes();
    let folder = temp_folder();
    if inputs(folder.path()).is_none() {
        return;
    }
    let path = |name: &str| folder.path().join(name);
    let public = std::fs::read_to_string(path("owner.pub")).expect("the public key");
    let (_, rest) = text.split_once("```toml\n").expect("a configuration");
    let (site, _) = rest.split_once("```").expect("its end");
    assert!(site.contains("ssh-ed25519 AAAA… admin@example"), "{site}");
    let site = site.replace("ssh-ed25519 AAAA… admin@example", public.trim());
    std::fs::write(path("site.toml"), &site).expect("written");
    std::fs::write(path("old.toml"), &site).expect("written");
    let image = appliance().file("reference.qcow2");
    std::os::unix::fs::symlink(image, path("reference.qcow2")).expect("a link");
    let without = run(consign()
        .current_dir(folder.path())
        .args(["config", "check", "site.toml"]));
    assert_eq!(without.status.code(), Some(2));
    let said = text_of(&without);
    assert!(
        said.contains("hint: name an image of the appliance: `--image FILE`"),
        "{said}"
    );
    for line in [
        "consign config init > site.toml",
        "consign config check site.toml --image reference.qcow2",
        "consign config disk site.toml --image reference.qcow2 -o site.img",
        "consign config page --image reference.qcow2 -o config.html",
        "consign config schema --image reference.qcow2",
        "consign config init --all",
        "consign config plan site.toml --image reference.qcow2 --since old.toml",
    ] {
        assert!(text.contains(line), "no `{line}` in the README");
        let words = line.split_once(" > ").map_or(line, |(words, _)| words);
        let words = words.split(' ').skip(1);
        must_run(consign().current_dir(folder.path()).args(words));
    }
    assert!(inside(&path("site.img"), "site.toml").is_none_or(|found| found == site.as_bytes()));
    let page = std::fs::read_to_string(path("config.html")).expect("the page");
    assert!(page.contains("VACONFIG"), "no label in the page");

    let line = "consign config disk site.toml --image reference.qcow2 --sign ~/.ssh/id_ed25519 \\\n    \
                --secrets secrets.toml --encrypt request.toml";
    assert!(text.contains(line), "no `{line}` in the README");
    let line = line.replace("~/.ssh/id_ed25519", "owner").replace('\\', "");
    let words = line.split_whitespace().skip(1);
    must_run(consign().current_dir(folder.path()).args(words));
}

#[test]
fn secrets_never_go_onto_a_disk_as_they_are() {
    let folder = temp_folder();
    let Some(words) = inputs(folder.path()) else {
        return;
    };
    let without = |left_out: &str| -> Vec<String> {
        let at = words
            .iter()
            .position(|word| word == left_out)
            .expect("an option");
        [&words[..at], &words[at + 2..]].concat()
    };
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let refused = |words: &[String], part: &str| {
        let output = run(consign().args(words));
        let said = text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
        assert!(!said.contains("CANARY"), "{said}");
        assert!(!folder.path().join("site.img").exists());
    };
    refused(&without("--encrypt"), "they are not encrypted");
    refused(&without("--license"), "license/product.key");
    write("secrets.toml", "other = \"CANARY\"\n");
    refused(&words, "is missing");
    write("secrets.toml", "password = \"CANARY\n");
    refused(&words, "they are not lines of texts");
    write("secrets.toml", "password = \"CANARY\"\n");
    // Longer than the appliance reads: not a part of it, and not without a word.
    let long = format!(
        "password = \"CANARY\"\nrest = \"{}\"\n",
        "x".repeat(256 << 10)
    );
    write("secrets.toml", &long);
    refused(&words, "secrets.toml` would have 262");
    // It fits, and encrypted it does not.
    let fits = format!("password = \"{}\"\n", "x".repeat((256 << 10) - 40));
    write("secrets.toml", &fits);
    refused(&words, "the appliance takes 262144 at most");
    write("secrets.toml", "password = \"CANARY\"\n");
    write("request.toml", &"\n".repeat(9000));
    refused(&words, "names no recipient");
}

/// Two inputs that would have one name on the medium are an error.
#[test]
fn no_file_of_a_disk_replaces_another() {
    let folder = temp_folder();
    let path = |name: &str| folder.path().join(name);
    for (name, text) in [
        (
            "site.toml",
            "schema = 1\n[config]\nid = \"a\"\nserial = 1\n",
        ),
        ("one/app.vab", "1"),
        ("two/App.vab", "2"),
        ("one/x.key", "1"),
        ("two/x.key", "2"),
    ] {
        std::fs::create_dir_all(path(name).parent().expect("a folder")).expect("folders");
        std::fs::write(path(name), text).expect("written");
    }
    std::fs::create_dir(path("roles")).expect("a folder");
    for (option, name, on_medium) in [
        (
            "--payload",
            ["one/app.vab", "two/App.vab"],
            "payload/app.vab",
        ),
        ("--license", ["one/x.key", "two/x.key"], "license/x.key"),
    ] {
        let mut disk = consign();
        disk.args(["config", "disk"]).arg(path("site.toml"));
        disk.arg("--roles").arg(path("roles"));
        for name in name {
            disk.arg(option).arg(path(name));
        }
        let output = run(disk.arg("-o").arg(path("site.img")));
        let said = text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(&format!("would replace `{on_medium}`")),
            "{said}"
        );
        assert!(!path("site.img").exists());
    }
}

#[test]
fn the_age_program_reads_files_of_any_length() {
    const CHUNK: usize = 64 << 10;
    let folder = temp_folder();
    let path = |name: &str| folder.path().join(name);
    let Some(mut keygen) = program("age-keygen", "age") else {
        return;
    };
    let said = text_of(&must_run(keygen.arg("-o").arg(path("key"))));
    let recipient = said.trim().rsplit(' ').next().expect("a recipient");
    let recipient = Recipient::parse(recipient).expect("a recipient");
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let plain = vec![b'x'; length];
        let mut chance = [7; CHANCE];
        chance[0] = u8::try_from(length % 251).expect("small");
        std::fs::write(path("file"), encrypt(&recipient, &plain, &chance)).expect("written");
        let mut age = program("age", "age").expect("age-keygen was there");
        let opened = must_run(age.args(["-d", "-i"]).args([path("key"), path("file")]));
        assert!(opened.stdout == plain, "{length}");
    }
}
