//! What an import decides, before anything is done: dry runs, XML, scripts.

use std::fs;

use crate::support::{must_run, program, run, temp_folder, text_of};

use super::{Small, fails, succeeds, tree_digest, virt_image};

/// Paths that are not asked for exist on every host of the tests.
const NOWHERE: [&str; 4] = ["--connect", "none", "--virt-type", "qemu"];

fn xml_of(small: &Small, args: &[&str]) -> String {
    succeeds(small.import(&["--print-xml"]).args(NOWHERE).args(args))
}

/// libvirt's schema, by libvirt's tool.
fn is_valid(xml: &str) {
    let folder = temp_folder();
    let path = folder.path().join("domain.xml");
    fs::write(&path, xml).expect("written");
    let Some(mut validate) = program("virt-xml-validate", "libvirt-clients") else {
        return;
    };
    let output = run(validate.arg(&path).arg("domain"));
    assert!(output.status.success(), "{}\n{xml}", text_of(&output));
}

#[test]
fn a_dry_run_touches_nothing() {
    let small = Small::new();
    let storage = temp_folder();
    let before = (tree_digest(small.path()), tree_digest(storage.path()));
    for more in [&["--verify"][..], &[], &["--format", "json"]] {
        let said = succeeds(
            small
                .import(&["--dry-run", "--storage"])
                .arg(storage.path())
                .args(more)
                .current_dir("/"),
        );
        assert!(said.contains("small") && said.contains("data"), "{said}");
    }
    for tool in ["libvirt", "qemu", "qm", "virt-install"] {
        succeeds(
            small
                .import(&["--emit", tool])
                .args(NOWHERE)
                .arg("--storage")
                .arg(storage.path()),
        );
    }
    let after = (tree_digest(small.path()), tree_digest(storage.path()));
    assert_eq!(before, after);
}

#[test]
fn libvirts_schema_accepts_every_kind_of_guest() {
    let small = Small::new();
    for args in [
        &[][..],
        &[
            "--firmware",
            "uefi",
            "--bus",
            "scsi",
            "--network",
            "default",
        ],
        &["--firmware", "uefi-secure", "--graphics", "vnc,port=5999"],
        &["--bus", "ide", "-w", "bridge=br0,mac=52:54:00:12:34:56"],
        &[
            "--bus",
            "sata",
            "--machine",
            "pc",
            "--os-variant",
            "debian12",
        ],
        &[
            "--cpu",
            "host-passthrough",
            "--autostart",
            "--memory",
            "64,maxmemory=128",
        ],
        &[
            "-u",
            "01234567-89ab-cdef-0123-456789abcdef",
            "-n",
            "it's <a> & b",
        ],
        &["--noacpi", "--noapic"],
    ] {
        is_valid(&xml_of(&small, args));
    }
}

#[test]
fn a_checker_that_accepts_anything_would_be_none() {
    let Some(mut validate) = program("virt-xml-validate", "libvirt-clients") else {
        return;
    };
    let small = Small::new();
    let xml = xml_of(&small, &[])
        .replace("<vcpu>", "<vcpus>")
        .replace("</vcpu>", "</vcpus>");
    let path = small.file("bad.xml");
    fs::write(&path, xml).expect("written");
    assert!(!run(validate.arg(&path).arg("domain")).status.success());
}

/// The appliance that virt-manager's tests of the command line imported,
/// with its disks beside it.
fn historic() -> Small {
    let small = Small::new();
    small.describe(
        r#"<image>
  <label>A simple test image</label>
  <domain>
    <boot type='xen'>
      <guest><os_type>xen</os_type><arch>i686</arch><features><pae/></features></guest>
      <os><loader>pygrub</loader></os>
      <drive disk="root.raw" target="xvda"/>
      <drive disk="scratch.raw" target="xvdc"/>
    </boot>
    <boot type="hvm">
      <guest><arch>i686</arch><features><pae/></features></guest>
      <os><type>hvm</type><loader dev="hd"/></os>
      <drive disk="root.raw" target="hda"/>
    </boot>
    <devices><vcpu>7</vcpu><memory>262144</memory><interface/><graphics/></devices>
  </domain>
  <storage>
    <disk file="root.raw" format="raw" size="4096" use="system"/>
    <disk file="scratch.raw" format="raw" size='100' use='scratch'/>
  </storage>
</image>"#,
    );
    fs::rename(small.file("disk.raw"), small.file("root.raw")).expect("renamed");
    small
}

#[track_caller]
fn has(xml: &str, words: &[&str]) {
    for word in words {
        assert!(xml.contains(word), "no `{word}` in\n{xml}");
    }
}

#[test]
fn old_spellings_give_the_machines_that_they_gave() {
    let small = historic();
    let connect = ["--connect", "qemu:///system", "-n", "foobar"];
    let xml = |args: &[&str]| {
        let xml = succeeds(small.import(&["--print"]).args(connect).args(args));
        is_valid(&xml);
        xml
    };
    let first = xml(&[
        "--memory",
        "128,maxmemory=256",
        "--os-variant",
        "winxp",
        "--boot",
        "0",
    ]);
    has(
        &first,
        &[
            "<domain type='xen'>",
            "<bootloader>pygrub</bootloader>",
            "<memory unit='KiB'>262144</memory>",
            "<currentMemory unit='KiB'>131072</currentMemory>",
            "<vcpu>7</vcpu>",
            "<pae/>",
            "<target dev='xvda' bus='xen'/>",
            "<target dev='xvdc' bus='xen'/>",
            "<graphics type='vnc'",
            "<source network='default'/>",
        ],
    );
    let second = xml(&[
        "--ram",
        "64",
        "--network",
        "user,model=e1000",
        "--boot",
        "1",
        "--virt-type",
        "qemu",
    ]);
    has(
        &second,
        &[
            "<currentMemory unit='KiB'>65536</currentMemory>",
            "<model type='e1000'/>",
            "<target dev='hda' bus='ide'/>",
            "arch='i686'",
            "<interface type='user'>",
        ],
    );
    assert_eq!(second.matches("<disk ").count(), 1, "{second}");
    small.edit("<graphics/>", "");
    let third = xml(&["--ram", "64", "--boot", "0"]);
    assert!(!third.contains("<graphics"), "{third}");
    assert_eq!(third.matches("<interface").count(), 1);
    // An hvm guest is what a QEMU host takes by itself.
    let fourth = succeeds(small.import(&connect).args([
        "-r",
        "64",
        "-b",
        "virbr9",
        "-m",
        "52:54:00:00:00:01",
        "-p",
        "--virt-type",
        "qemu",
    ]));
    has(
        &fourth,
        &[
            "<domain type='qemu'>",
            "<source bridge='virbr9'/>",
            "52:54:00:00:00:01",
        ],
    );
}

#[test]
fn the_other_spellings_say_what_they_said() {
    let small = Small::new();
    small.edit("<memory>", "<interface/><memory>");
    let id = "01234567-89ab-cdef-0123-456789abcdef";
    let mac = "52:54:00:00:00:01";
    let xml = xml_of(
        &small,
        &[
            ["--vcpus", "3"],
            ["--cpuset", "0-2"],
            ["--uuid", id],
            ["-w", &format!("default,mac={mac}")],
            ["--map-network", "default=bridge=br7"],
        ]
        .concat(),
    );
    is_valid(&xml);
    let uuid = format!("<uuid>{id}</uuid>");
    let cpus = "<vcpu cpuset='0-2'>3</vcpu>";
    has(&xml, &[&uuid, cpus, mac, "<source bridge='br7'/>"]);
    let xml = xml_of(&small, &["--bridge", "br8", "--mac", mac, "--vnc"]);
    has(
        &xml,
        &["<source bridge='br8'/>", mac, "<graphics type='vnc'"],
    );
    assert!(xml_of(&small, &["--sdl"]).contains("<graphics type='sdl'/>"));
    assert!(!xml_of(&small, &["--nographics"]).contains("<graphics"));

    let storage = temp_folder();
    for (word, is_heard) in [("-q", false), ("-d", true)] {
        let name = word.trim_start_matches('-');
        let args = ["--noreboot", "-n", name, word];
        let mut import = small.import(&NOWHERE);
        let output = run(import.args(args).arg("--storage").arg(storage.path()));
        assert!(output.status.success(), "{}", text_of(&output));
        assert_eq!(!output.stderr.is_empty(), is_heard, "{word}");
    }
}

/// No file system of the memory shares blocks with another one.
#[test]
fn a_clone_that_cannot_share_blocks_is_refused_and_leaves_nothing() {
    let small = Small::new();
    let storage = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let mut import = small.import(&NOWHERE);
    import.args(["--noreboot", "--clone", "reflink", "--storage"]);
    let import = import.arg(storage.path());
    fails(import, "import-reflink", 1, "share blocks", "--clone full");
    let left = consign::tree::list_folder(storage.path()).expect("a folder");
    assert_eq!(left.len(), 0);
}

#[test]
fn advice_left_out_gives_the_historic_machine() {
    let small = Small::new();
    let text = fs::read_to_string(small.descriptor()).expect("a descriptor");
    let (before, after) = text.split_once("<va:machine>").expect("advice");
    let (_, after) = after.split_once("</va:machine>").expect("its end");
    small
        .describe(&format!("{before}{after}").replace(" xmlns:va=\"urn:consign:appliance:1\"", ""));
    let xml = xml_of(&small, &[]);
    is_valid(&xml);
    has(
        &xml,
        &["machine='pc'", "bus='ide'", "dev='hda'", "dev='hdb'"],
    );
    let modern = xml_of(&small, &["--os-variant", "fedora20"]);
    has(&modern, &["machine='q35'", "bus='virtio'", "dev='vda'"]);
}

#[test]
fn scripts_for_other_tools_are_sound_shell() {
    let small = Small::new();
    for (tool, words) in [
        (
            "qemu",
            &[
                "exec qemu-system-x86_64",
                "cp --reflink=auto",
                "truncate -s 4194304",
            ][..],
        ),
        (
            "virt-install",
            &["virt-install", "--import", "--osinfo", "format=raw"],
        ),
        (
            "qm",
            &["qm create", "import-from=", "--scsihw", "\"$STORE:1\""],
        ),
    ] {
        for firmware in ["bios", "uefi"] {
            let script = succeeds(
                small
                    .import(&["--emit", tool, "--firmware", firmware, "-n", "a b's"])
                    .args(NOWHERE),
            );
            has(&script, words);
            let path = small.file("script");
            fs::write(&path, &script).expect("written");
            if let Some(mut check) = program("shellcheck", "shellcheck") {
                must_run(check.args(["-s", "sh"]).arg(&path));
            }
        }
    }
}

#[test]
fn wishes_that_cannot_be_fulfilled_are_refused() {
    let small = Small::new();
    let dry = |args: &[&str]| {
        let mut command = small.import(&["--dry-run"]);
        command.args(args);
        command
    };
    for (args, slug, words, hint) in [
        (
            &["--disk", "x:size=1GiB"][..],
            "import-no-such-disk",
            "system, data",
            "one of those",
        ),
        (
            &["--disk", "system:size=1KiB"],
            "import-shrink",
            "1 MiB",
            "larger",
        ),
        (
            &["--bus", "ide", "--machine", "q35"],
            "import-no-bus",
            "q35",
            "--bus",
        ),
        (
            &["--boot", "1"],
            "import-no-such-boot",
            "has 1",
            "counted from 0",
        ),
        (&["-n", "a/b"], "import-name", "a/b", "--name"),
        (&["-n", "17"], "import-name", "17", "--name"),
    ] {
        fails(&mut dry(args), slug, 2, words, hint);
    }
    small.edit("<memory>65536</memory>", "");
    fails(&mut dry(&[]), "import-no-memory", 2, "memory", "--memory");
    small.edit(">small</name>", "></name>");
    fails(&mut dry(&[]), "import-no-name", 2, "name", "--name");
}

#[test]
fn help_manual_and_completion_are_there() {
    let folder = temp_folder();
    succeeds(virt_image().arg("--man").arg(folder.path()));
    let page = fs::read_to_string(folder.path().join("virt-image.1")).expect("a page");
    for word in ["print\\-xml", "skip\\-checksum", "map\\-network"] {
        assert!(page.contains(word), "{word}");
    }
    assert!(folder.path().join("virt-image-upgrade.1").is_file());
    let script = succeeds(virt_image().args(["--completion", "bash"]));
    assert!(script.contains("virt-image"), "{script}");
}
