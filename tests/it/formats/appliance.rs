//! Wrong appliances, and the exact text of what is said about each.

use consign::appliance::{Appliance, ApplianceError, Shelf, Source, Style};

use crate::support::sample::{self, LAYERS, MINIMAL, shelf};
use crate::support::{consign, golden, repo_root, run, temp_folder, text_of};

fn parse(text: &str) -> Result<Appliance, ApplianceError> {
    Appliance::parse(&Source::new("appliance.toml", text), &shelf(&LAYERS))
}

/// What is said about `text`, drawn without colours.
fn said(text: &str) -> String {
    said_with(text, &LAYERS)
}

fn said_with(text: &str, layers: &[(&str, &str)]) -> String {
    let error = Appliance::parse(&Source::new("appliance.toml", text), &shelf(layers))
        .expect_err("the appliance is wrong");
    format!("{}error: {error}\n", error.draw(Style::Plain))
}

/// The smallest appliance with `from` replaced.
fn but(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "the sample has no {from:?}");
    MINIMAL.replacen(from, to, 1)
}

/// The smallest appliance and more below it.
fn and(more: &str) -> String {
    format!("{MINIMAL}\n{more}")
}

#[test]
fn the_smallest_appliance_gets_the_documented_defaults() {
    let appliance = parse(MINIMAL).expect("sound");
    golden("appliance/defaults.txt", &format!("{appliance:#?}\n"));
}

#[test]
fn everything_that_can_be_written_is_understood() {
    let text = r#"schema = 1

[appliance]
name = "wiki"
version = "2.0~rc1+build.5"
label = "Team wiki"
description = """
Pages for a team.
With pictures."""
source_date = 2024-05-01T02:00:00+02:00

[system]
distribution = "debian"
suite = "bookworm"
architecture = "amd64"
mirror = "https://deb.example.com/debian"
kernel = "cloud"
layers = ["base", "web", "app"]

[disk]
profile = "single"
size = "8GiB"
esp = "128MiB"
root = "1.5GiB"

[boot]
cmdline = "mitigations=auto  loglevel=3"

[machine]
memory = "2GiB"
vcpus = 2
nics = 0
graphics = false
firmware = ["bios"]

[[machine.disk]]
name = "data"
size = "8GiB"

[outputs]
formats = ["qcow2"]
qcow2_compression = "zstd"
zstd_level = 19
"#;
    let layers = [
        (
            "base",
            "kind = \"packages\"\npackages = [\"udev\", \"systemd\"]\nrecommends = true\n\
             exclude = [\"perl\"]\nexclude_paths = [\"/usr/share/man/*\"]\n\
             include_paths = [\"/usr/share/man/man1/*\"]\n",
        ),
        LAYERS[2],
        (
            "app",
            "kind = \"files\"\nfolder = \"files\"\n\n[[rule]]\npath = \"/usr/bin/*\"\n\
             mode = \"0755\"\ndirectory_mode = \"700\"\nuid = 33\ngid = 0\n\
             xattrs = { \"user.note\" = \"text\", \"security.capability\" = \"0x01000002\" }\n",
        ),
    ];
    let appliance = Appliance::parse(&Source::new("appliance.toml", text), &shelf(&layers))
        .unwrap_or_else(|error| panic!("{}", error.draw(Style::Plain)));
    golden("appliance/everything.txt", &format!("{appliance:#?}\n"));
}

/// Each row becomes one section of the golden file.
fn corpus() -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    rows.extend(syntax());
    rows.extend(names());
    rows.extend(layers());
    rows.extend(disk());
    rows.extend(machine());
    rows
}

fn syntax() -> Vec<(&'static str, String)> {
    vec![
        ("an empty file", said("")),
        ("no TOML at all", said("this is not TOML\n")),
        (
            "two syntax errors",
            said("schema = \n[appliance\nname = \"a\"\n"),
        ),
        (
            "a key twice",
            said(&but("name = \"wiki\"", "name = \"wiki\"\nname = \"other\"")),
        ),
        (
            "another schema",
            said(&but("schema = 1", "schema = 2\nnews = true")),
        ),
        (
            "unknown keys in three tables",
            said(&and(
                "[disk]\nsise = \"8GiB\"\n\n[machine]\nvcpu = 2\ncolour = \"red\"\n\n[extra]\n",
            )),
        ),
        (
            "wrong types at once",
            said(&and(
                "[disk]\nsize = 8\n\n[machine]\nvcpus = \"two\"\nnics = -1\ngraphics = \"yes\"\nfirmware = \"bios\"\n",
            )),
        ),
        (
            "a table that is text",
            said(&format!("disk = \"8GiB\"\n{MINIMAL}")),
        ),
        (
            "elements of the wrong type",
            said(&but("[\"base\", \"app\"]", "[\"base\", 1, [\"app\"]]")),
        ),
        (
            "a single table instead of a list of them",
            said(&and("[machine.disk]\nname = \"data\"\nsize = \"1GiB\"\n")),
        ),
        (
            "CRLF and a byte order mark",
            said(&format!(
                "\u{feff}{}",
                but("name =", "nam =").replace('\n', "\r\n")
            )),
        ),
        (
            "control characters",
            said(&but("\"wiki\"", "\"wi\\u001b[2Jki\"")),
        ),
        (
            "a raw escape character",
            said(&but("\"wiki\"", "\"wi\u{1b}[2Jki\"")),
        ),
        (
            "text that runs backwards",
            said(&but("\"wiki\"", "\"\u{202e}ikiw\"")),
        ),
        (
            "a very long line",
            said(&but("\"wiki\"", &format!("\"{}\"", "w".repeat(5000)))),
        ),
    ]
}

fn names() -> Vec<(&'static str, String)> {
    let date = |value: &str| {
        and("").replace(
            "version = \"1.0.0\"",
            &format!("version = \"1.0.0\"\nsource_date = {value}"),
        )
    };
    vec![
        ("missing tables", said("schema = 1\n")),
        ("missing keys", said("schema = 1\n[appliance]\n[system]\n")),
        (
            "bad names",
            said(&but("\"wiki\"", "\"my wiki\"").replace("\"1.0.0\"", "\"-1\"")),
        ),
        ("an empty name", said(&but("\"wiki\"", "\"\""))),
        (
            "a label of two lines",
            said(&but("version", "label = \"\"\"a\nb\"\"\"\nversion")),
        ),
        (
            "a distribution that is not ours",
            said(&but("\"debian\"", "\"debain\"").replace("\"bookworm\"", "\"Book Worm\"")),
        ),
        (
            "unknown words",
            said(&but(
                "suite",
                "kernel = \"small\"\narchitecture = \"arm64\"\nmirror = \"ftp://x\"\nsuite",
            )),
        ),
        ("a date without a zone", said(&date("2024-05-01T00:00:00"))),
        ("a date that FAT does not know", said(&date("0"))),
        (
            "a day that does not exist",
            said(&date("\"2023-02-29T00:00:00Z\"")),
        ),
        ("a date that is none", said(&date("\"yesterday\""))),
    ]
}

fn layers() -> Vec<(&'static str, String)> {
    let with =
        |base: &'static str| said_with(MINIMAL, &[("base", base), ("app", "kind = \"files\"\n")]);
    let files = |app: &'static str| said_with(MINIMAL, &[LAYERS[0], ("app", app)]);
    vec![
        (
            "a layer twice",
            said(&but("[\"base\", \"app\"]", "[\"base\", \"app\", \"base\"]")),
        ),
        (
            "an unknown layer",
            said(&but("\"app\"]", "\"apps\", \"database\", \"Web\"]")),
        ),
        ("no layer", said(&but("[\"base\", \"app\"]", "[]"))),
        ("only files", said(&but("[\"base\", \"app\"]", "[\"app\"]"))),
        (
            "a reserved layer name",
            said(&but("\"app\"]", "\"boot-tools\"]")),
        ),
        ("a layer without a kind", with("packages = [\"udev\"]\n")),
        ("a layer of a wrong kind", with("kind = \"package\"\n")),
        ("a layer without packages", with("kind = \"packages\"\n")),
        (
            "wrong packages",
            with(
                "kind = \"packages\"\npackages = [\"Nginx\", \"udev\", \"udev\", \"perl\"]\nexclude = [\"perl\"]\nexclude_path = [\"/usr/share/doc/*\"]\nexclude_paths = [\"usr/share/doc/*\"]\n",
            ),
        ),
        (
            "wrong files",
            files(
                "kind = \"files\"\nfolder = \"file\"\n\n[[rule]]\npath = \"/etc/../x\"\nmode = 755\n\n[[rule]]\npath = \"/x\"\nmode = \"0855\"\nuid = 4294967295\nxattrs = { note = \"x\", \"user.a\" = \"0x1\" }\n\n[[rule]]\npath = \"/y\"\n",
            ),
        ),
        (
            "wrong entries of files",
            files(
                "kind = \"files\"\nremove = [\"/\", \"etc/motd\"]\ntemplate = [\"/etc/issue\"]\n\n[[entry]]\npath = \"/dev/a\"\nkind = \"char\"\nmajor = 1\n\n[[entry]]\npath = \"/a\"\nkind = \"dir\"\n\n[[entry]]\npath = \"/b\"\nkind = \"symlink\"\n\n[[entry]]\npath = \"/c\"\nkind = \"fifo\"\n\n[[entry]]\npath = \"/c\"\nkind = \"fifo\"\nmode = \"9\"\n",
            ),
        ),
        ("an archive from nowhere", files("kind = \"tar\"\n")),
        (
            "a wrong archive",
            files(
                "kind = \"tar\"\nfile = \"app.tar.xz\"\nsha256 = \"00\"\nstrip = 65\ninto = \"opt\"\nexclude = [\"/x\"]\n",
            ),
        ),
        (
            "an address without its digest",
            files("kind = \"tar\"\nurl = \"https://example.com/app.tar.gz\"\n"),
        ),
        (
            "an address that is none",
            files(
                "kind = \"tar\"\nurl = \"ftp://example.com/app.tar.gz\"\nfile = \"app.tar.gz\"\n",
            ),
        ),
        (
            "wrong images",
            files("kind = \"oci\"\nfrom = \"debian:12\"\nimage = \"x\"\n"),
        ),
        (
            "an image that is not there",
            files("kind = \"oci\"\npath = \"image.tra\"\n"),
        ),
        (
            "a wrong script",
            files(
                "kind = \"run\"\nscript = \"setup\"\nfolder = \"file\"\nnetwork = \"yes\"\nenvironment = { PATH = \"/x\", \"1a\" = \"y\" }\n",
            ),
        ),
        (
            "secrets that are allowed by a wrong pattern",
            files("kind = \"files\"\nallow_secrets = [\"opt/*.pem\"]\nallow_secret = true\n"),
        ),
        (
            "wrong names of values",
            said(&and("[values]\nVendor = \"x\"\nvendor = 1\n")),
        ),
        (
            "errors in two files",
            said_with(
                &but("version =", "verzion ="),
                &[("base", "kind = \"packages\"\npackages = []\n"), LAYERS[1]],
            ),
        ),
    ]
}

fn disk() -> Vec<(&'static str, String)> {
    let disk = |text: &str| said(&and(&format!("[disk]\n{text}\n")));
    vec![
        (
            "sizes without a unit, with another, out of bounds",
            disk("size = \"8\"\nesp = \"256MB\"\nroot = \"1MiB\"\nvar = \"1000KiB\""),
        ),
        ("a disk too small", disk("size = \"4GiB\"")),
        (
            "a single disk too small",
            disk("size = \"1GiB\"\nprofile = \"single\""),
        ),
        ("a size above everything", disk("root = \"99999999TiB\"")),
        (
            "var on a single disk",
            disk("profile = \"single\"\nvar = \"1GiB\""),
        ),
        ("an unknown profile", disk("profile = \"abc\"")),
    ]
}

fn machine() -> Vec<(&'static str, String)> {
    let machine = |text: &str| said(&and(&format!("[machine]\n{text}\n")));
    vec![
        (
            "numbers out of bounds",
            machine("memory = \"64MiB\"\nvcpus = 0\nnics = 99"),
        ),
        (
            "firmware",
            machine("firmware = [\"uefi\", \"bois\", \"uefi\"]"),
        ),
        ("no firmware", machine("firmware = []")),
        (
            "disks of the customer's",
            said(&and(
                "[[machine.disk]]\nname = \"config\"\nsize = \"1GiB\"\n[[machine.disk]]\nname = \"a\"\nsize = \"1GiB\"\n[[machine.disk]]\nname = \"a\"\n[[machine.disk]]\nname = \"c\"\nsize = \"1GiB\"\n",
            )),
        ),
        (
            "a command line that loaders would take apart",
            said(&and(
                "[boot]\ncmdline = \"a=$b root=/dev/sda consign.slot=b\"\n",
            )),
        ),
        (
            "repositories",
            said(&and(
                "[[repository]]\nname = \"local\"\nsuite = \"../x\"\n[[repository]]\nname = \"acme\"\nsuite = \"stable\"\nurl = \"https://deb.example.com\"\n[[repository]]\nname = \"acme\"\nsuite = \"bookworm-backports\"\nkey = \"k.asc\"\npriority = 1001\n[[repository]]\nname = \"b\"\nsuite = \"s\"\nurl = \"ftp://x\"\nkey = \"/etc/k.asc\"\nkeys = 1\n[[repository]]\nname = \"bookworm-security\"\nsuite = \"x\"\n",
            )),
        ),
        (
            "pins",
            said(&and(
                "[[pin]]\npackages = []\nversion = \"1\"\n[[pin]]\npackages = [\"a\"]\n[[pin]]\npackages = [\"a b\"]\nsource = \"bookworm-securty\"\n[[pin]]\nversion = \"1.*\"\n",
            )),
        ),
        (
            "outputs",
            said(&and(
                "[outputs]\nformats = [\"vdi\", \"raw\", \"raw\"]\nqcow2_compression = \"gzip\"\nzstd_level = 20\n",
            )),
        ),
    ]
}

#[test]
fn each_wrong_appliance_is_told_what_is_wrong() {
    let sections: Vec<String> = corpus()
        .into_iter()
        .map(|(title, said)| format!("=== {title}\n\n{said}"))
        .collect();
    golden("appliance/wrong.txt", &sections.join("\n"));
}

#[test]
fn no_message_carries_a_control_character() {
    for (title, said) in corpus() {
        let odd = said.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(odd, None, "{title}");
        assert!(!said.contains('\u{202e}'), "{title}");
    }
}

#[test]
fn a_program_gets_line_and_column() {
    let error = parse(&but("suite", "siute")).expect_err("a slip");
    let json = serde_json::Value::from(error.json());
    let expected = serde_json::json!([
        {
            "file": "appliance.toml", "line": 9, "column": 1,
            "message": "unknown key `siute` in [system]",
            "help": "did you mean `suite`?",
        },
    ]);
    assert_eq!(json, expected);
}

#[test]
fn a_huge_file_is_not_read_to_its_end() {
    let folder = temp_folder();
    let path = folder.path().join("appliance.toml");
    let file = std::fs::File::create(&path).expect("create");
    file.set_len(1 << 40).expect("a sparse TiB");
    let error = Appliance::open(&path).expect_err("huge");
    assert_eq!(error.slug(), "appliance-too-large");
    assert_eq!(
        error.to_string(),
        format!("`{}` is larger than 1 MiB", path.display())
    );
}

#[test]
fn a_missing_file_names_the_way_out() {
    let folder = temp_folder();
    let path = folder.path().join("appliance.toml");
    let error = Appliance::open(&path).expect_err("missing");
    assert_eq!(
        error.to_string(),
        format!("there is no `{}`", path.display())
    );
    assert_eq!(
        error.hint().as_deref(),
        Some("run `consign init` to write a starter")
    );
    assert_eq!(error.class().code(), 2);
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_line() {
    let error = Source::from_bytes("appliance.toml", b"schema = 1\nname = \"\xfc\"\n")
        .expect_err("Latin-1");
    assert_eq!(
        error.to_string(),
        "line 2 of `appliance.toml` is not UTF-8 text"
    );
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let text = format!("a = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&text).is_err());
    let text = format!("{}\n", "[a]\nb = {}\n".repeat(10_000));
    assert!(parse(&text).is_err());
}

#[test]
fn roles_and_policies_are_judged_as_the_agent_will() {
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    let consign = folder.path().join("layers/app/files/usr/lib/consign");
    let write = |name: &str, text: &str| {
        let path = consign.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    };
    let path = folder.path().join("appliance.toml");
    let role = "schema = 1\nname = \"web\"\ndescription = \"A site\"\n\n[[template]]\n\
                source = \"site.conf.j2\"\ntarget = \"/etc/site.conf\"\ntype = \"text\"\n";
    write("roles/web/role.toml", role);
    write("roles/web/site.conf.j2", "title\n");
    write("policy.toml", "schema = 1\nroles = [\"web\"]\n");
    if let Err(error) = Appliance::open(&path) {
        panic!("{}", error.draw(Style::Plain));
    }

    write("policy.toml", "schema = 1\nrole = [\"web\"]\n");
    write(
        "roles/web/role.toml",
        &role.replace("/etc/site.conf", "/usr/site.conf"),
    );
    write(
        "roles/mail/role.toml",
        &role.replace("site.conf.j2", "site.conf"),
    );
    write("roles/mail/site.conf.j2", "title\n");
    let error = Appliance::open(&path).expect_err("wrong roles");
    let drawn = error.draw(Style::Plain);
    let place = format!("{}/", folder.path().display());
    golden("appliance/roles.txt", &drawn.replace(&place, ""));
}

/// A vendor hears it before a customer does.
#[test]
fn an_unsigned_policy_is_told_by_config_check() {
    use consign::sign::{SecretKey, Signer, sshsig};
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    let place = folder.path().join("layers/app/files/usr/lib/consign");
    std::fs::create_dir_all(&place).expect("mkdir");
    let write = |name: &str, text: &str| std::fs::write(place.join(name), text).expect("write");
    let signer = Signer::File(SecretKey::from_seed(&[1; 32]));
    let policy = "schema = 1\nroles = [\"web\"]\n";
    let site = folder.path().join("site.toml");
    let text = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n";
    std::fs::write(&site, text).expect("write");
    let check = || {
        let mut check = consign();
        check.current_dir(folder.path()).args(["config", "check"]);
        let output = run(check.arg(&site));
        (output.status.code(), text_of(&output))
    };
    write("vendor.pub", &signer.public().to_openssh("vendor"));
    write("policy.toml", policy);
    let (code, said) = check();
    assert_eq!(code, Some(2), "{said}");
    for part in [
        "policy.toml",
        "it is not signed",
        "ssh-keygen -Y sign -n consign-policy",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let sign = |text: &str| sshsig::sign(&signer, "consign-policy", text.as_bytes());
    write("policy.toml.sig", &sign("schema = 1\n").expect("signed"));
    let (code, said) = check();
    assert!(
        code == Some(2) && said.contains("its signature does not count"),
        "{said}"
    );
    write("policy.toml.sig", &sign(policy).expect("signed"));
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_flood_of_errors_is_counted_and_cut() {
    use std::fmt::Write as _;
    let mut text = MINIMAL.to_owned();
    for number in 0..60_000 {
        writeln!(text, "k{number} = 1").expect("a string");
    }
    let error = parse(&text).expect_err("unknown keys");
    assert_eq!(error.to_string(), "`appliance.toml` has 60000 errors");
    let drawn = error.draw(Style::Plain);
    assert!(drawn.ends_with("... and 59950 more in appliance.toml\n\n"));
    assert_eq!(error.json().len(), 1000);
    assert!(parse(&"\"".repeat(1 << 19)).is_err());
}

#[test]
fn cut_and_flipped_files_never_panic() {
    let text = MINIMAL.as_bytes();
    for at in 0..text.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut bytes = text.to_vec();
            bytes[at] ^= flip;
            for bytes in [&bytes[..], &bytes[..at]] {
                let Ok(source) = Source::from_bytes("appliance.toml", bytes) else {
                    continue;
                };
                if let Err(error) = Appliance::parse(&source, &shelf(&LAYERS)) {
                    assert!(error.draw(Style::Plain).contains("error"), "at {at}");
                    assert!(!error.json().is_empty(), "at {at}");
                }
            }
        }
    }
}

#[test]
fn the_reference_appliance_is_sound() {
    if let Err(error) = Appliance::open(&repo_root().join("appliance.toml")) {
        panic!("{error}\n{}", error.draw(Style::Plain));
    }
}

#[test]
fn an_empty_shelf_offers_to_make_a_folder() {
    let error = Appliance::parse(&Source::new("appliance.toml", MINIMAL), &Shelf::default())
        .expect_err("no layers");
    let drawn = error.draw(Style::Plain);
    assert!(
        drawn.contains("there is no layer folder `layers/base`"),
        "{drawn}"
    );
    assert!(drawn.contains("make the folder"), "{drawn}");
}
