//! The plan: its text, what changes it and what does not.

use consign::appliance::{Appliance, Style};
use consign::digest::Digest;
use consign::image::{FileSum, ImageFormat};
use consign::layer::spec::Recipe;
use consign::plan::{BuildPlan, Builder, PlanError, Wishes};
use consign::units::{ByteSize, MIB};
use tempfile::TempDir;

use crate::support::sample::{self, MINIMAL};
use crate::support::{golden, temp_folder};

fn builder() -> Builder {
    Builder {
        version: "0.1.0".into(),
        agent: Digest::of(b"agent"),
    }
}

fn open(folder: &TempDir) -> Appliance {
    Appliance::open(&folder.path().join("appliance.toml"))
        .unwrap_or_else(|error| panic!("{}", error.draw(Style::Plain)))
}

fn plan_of(text: &str) -> BuildPlan {
    let folder = temp_folder();
    sample::write(folder.path(), text);
    resolve(&open(&folder))
}

fn resolve(appliance: &Appliance) -> BuildPlan {
    BuildPlan::resolve(
        appliance,
        &sample::lock(appliance),
        &builder(),
        &Wishes::default(),
    )
    .expect("a plan")
}

/// The smallest appliance and more below it.
fn and(more: &str) -> String {
    format!("{MINIMAL}\n{more}")
}

#[test]
fn the_text_of_a_small_plan_is_the_golden_one() {
    let plan = plan_of(MINIMAL);
    // The digest covers what other rooms specify, and changes with each of them.
    let text = plan.to_string().replace(&plan.digest().hex(), "...");
    golden("plan/wiki.txt", &text);
}

#[test]
fn a_plan_for_programs_has_the_same_figures() {
    let plan = plan_of(MINIMAL);
    let json = plan.json();
    assert_eq!(json["plan"], plan.digest().to_string());
    assert_eq!(json["disk"]["size"], plan.disk.size.bytes());
    assert_eq!(json["disk"]["partitions"][4]["name"], "var");
    assert_eq!(
        json["layers"][0]["packages"][0]["name"],
        "linux-image-amd64"
    );
    assert_eq!(
        json["outputs"],
        serde_json::json!(["wiki.raw", "wiki.qcow2"])
    );
}

#[test]
fn the_kernels_layer_leaves_out_what_no_hypervisor_has() {
    let plan = plan_of(MINIMAL);
    let recipes: Vec<_> = plan
        .layers
        .iter()
        .filter_map(|layer| match &layer.recipe {
            Recipe::Packages(recipe) => Some(recipe),
            _ => None,
        })
        .collect();
    let [kernels] = recipes.as_slice() else {
        panic!("one layer of packages: {recipes:?}")
    };
    let lean = consign::boot::lean_kernel();
    assert!(
        kernels
            .pins
            .iter()
            .any(|pin| pin.name == "linux-image-amd64")
    );
    assert!(
        lean.exclude
            .iter()
            .all(|one| kernels.exclude_paths.contains(one))
    );
    assert!(
        lean.include
            .iter()
            .all(|one| kernels.include_paths.contains(one))
    );
}

#[test]
fn every_planned_disk_keeps_the_rules_of_the_disk_room() {
    for disk in [
        "profile = \"ab\"",
        "profile = \"single\"",
        "size = \"8GiB\"",
        "size = \"8GiB\"\nprofile = \"single\"",
        "esp = \"64MiB\"\nroot = \"64MiB\"\nvar = \"64MiB\"",
        "size = \"16TiB\"\nroot = \"2TiB\"",
    ] {
        let plan = plan_of(&and(&format!("[disk]\n{disk}\n")));
        plan.disk
            .check()
            .unwrap_or_else(|error| panic!("{disk}: {error}"));
        let parts = &plan.disk.partitions;
        let mut at = MIB;
        for part in parts {
            assert_eq!(part.start.bytes(), at, "{disk}: {} leaves a gap", part.name);
            assert!(part.size.bytes().is_multiple_of(MIB), "{disk}");
            at += part.size.bytes();
        }
        assert_eq!(
            plan.disk.size.bytes(),
            at + MIB,
            "{disk}: the last one takes the rest"
        );
        assert_eq!(parts.len(), plan.contents.len());
        let last = parts.last().expect("partitions").size;
        assert_eq!(plan.var.as_ref().unwrap_or(&plan.root).size, last, "{disk}");
    }
}

#[test]
fn two_roots_share_nothing_but_their_type() {
    let plan = plan_of(MINIMAL);
    let names: Vec<_> = plan
        .disk
        .partitions
        .iter()
        .map(|part| part.name.as_str())
        .collect();
    assert_eq!(names, ["bios", "esp", "root-a", "root-b", "var"]);
    let [.., a, b, _] = plan.disk.partitions.as_slice() else {
        panic!("five partitions")
    };
    assert_eq!((a.type_guid, a.size), (b.type_guid, b.size));
    assert_ne!(a.guid, b.guid);
    assert_eq!(plan.boot.slots.root(), a.guid);
    assert_eq!(
        b.attributes.bits(),
        1 << 63,
        "nothing may mount the empty root"
    );
}

#[test]
fn identifiers_change_with_name_version_and_lock_only() {
    let ids = |plan: &BuildPlan| {
        let parts: Vec<_> = plan.disk.partitions.iter().map(|part| part.guid).collect();
        (
            plan.disk.guid,
            parts,
            plan.root.uuid,
            plan.root.hash_seed,
            plan.esp.volume_id,
        )
    };
    let before = ids(&plan_of(MINIMAL));
    assert_eq!(
        ids(&plan_of(&and("[machine]\nmemory = \"2GiB\"\n"))),
        before
    );
    for text in [
        MINIMAL.replace("\"wiki\"", "\"wiki2\""),
        MINIMAL.replace("1.0.0", "1.0.1"),
        MINIMAL.replace("\"app\"]", "\"web\", \"app\"]"),
    ] {
        let after = ids(&plan_of(&text));
        assert_ne!(after.0, before.0);
        assert_ne!(after.1[0], before.1[0]);
        assert_ne!(after.2, before.2);
        assert_ne!(after.3, before.3);
        assert_ne!(after.4, before.4);
    }
    let (disk, parts, uuid, seed, _) = before;
    let mut all = parts;
    all.extend([disk, uuid, seed]);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "each role has its own identifier");
}

#[test]
fn the_same_files_in_another_folder_give_the_same_plan() {
    assert_eq!(plan_of(MINIMAL).digest(), plan_of(MINIMAL).digest());
}

#[test]
fn each_change_that_reaches_the_outputs_changes_the_digest() {
    let before = plan_of(MINIMAL).digest();
    for text in [
        MINIMAL.replace("1.0.0", "1.0.1"),
        MINIMAL.replace("version", "label = \"Wiki\"\nversion"),
        MINIMAL.replace("version", "source_date = 1700000000\nversion"),
        and("[disk]\nvar = \"2GiB\"\n"),
        and("[boot]\ncmdline = \"loglevel=7\"\n"),
        and("[machine]\nnics = 2\n"),
    ] {
        assert_ne!(plan_of(&text).digest(), before, "{text}");
    }
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    std::fs::write(folder.path().join("layers/app/files/etc/motd"), "hallo\n").expect("write");
    assert_ne!(resolve(&open(&folder)).digest(), before);

    let appliance = open(&folder);
    let other = Builder {
        agent: Digest::of(b"another agent"),
        ..builder()
    };
    let lock = sample::lock(&appliance);
    let plan = BuildPlan::resolve(&appliance, &lock, &other, &Wishes::default()).expect("a plan");
    assert_ne!(plan.digest(), resolve(&appliance).digest());
}

#[test]
fn the_digest_is_the_one_that_the_image_will_carry() {
    let plan = plan_of(MINIMAL);
    assert_eq!(plan.machine.build, plan.digest());
    assert!(plan.digest().hex().starts_with(&plan.boot.build_id));
    assert_eq!(plan.boot.build_id.len(), 16);
}

#[test]
fn the_source_date_is_the_newest_release_unless_it_is_written() {
    assert_eq!(plan_of(MINIMAL).source_date.seconds, 1_757_500_000);
    let text = MINIMAL.replace(
        "version",
        "source_date = 2024-05-01T02:00:00+02:00\nversion",
    );
    assert_eq!(
        plan_of(&text).source_date.to_string(),
        "2024-05-01T00:00:00Z"
    );
}

#[test]
fn the_kernel_joins_the_lowest_layer_of_packages() {
    let requested = |text: &str| {
        let plan = plan_of(text);
        plan.lock.layers[0].group.packages.clone()
    };
    assert_eq!(requested(MINIMAL), ["linux-image-amd64", "systemd", "udev"]);
    let cloud = MINIMAL.replace("suite", "kernel = \"cloud\"\nsuite");
    assert_eq!(requested(&cloud)[0], "linux-image-cloud-amd64");
}

#[test]
fn a_lock_that_answers_another_request_is_refused_by_name() {
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    let lock = sample::lock(&open(&folder));
    sample::write(
        folder.path(),
        &MINIMAL.replace("\"app\"]", "\"web\", \"app\"]"),
    );
    let error = BuildPlan::resolve(&open(&folder), &lock, &builder(), &Wishes::default())
        .expect_err("drift");
    assert_eq!(
        error.to_string(),
        "`appliance.toml` has moved away from `appliance.lock`: layer `web` is new"
    );
    assert_eq!(error.slug(), "lock-drift");
    assert_eq!(error.class().code(), 2);
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("`consign lock`"))
    );
}

#[test]
fn without_a_release_there_must_be_a_source_date() {
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    let appliance = open(&folder);
    let mut lock = sample::lock(&appliance);
    lock.releases.clear();
    let error =
        BuildPlan::resolve(&appliance, &lock, &builder(), &Wishes::default()).expect_err("no date");
    assert!(matches!(error, PlanError::NoSourceDate));
}

#[test]
fn the_largest_sizes_do_not_overflow() {
    let plan = plan_of(&and(
        "[disk]\nroot = \"8TiB\"\nvar = \"8TiB\"\nesp = \"2GiB\"\n",
    ));
    assert!(plan.disk.size > ByteSize::from_mib(24 << 20));
}

#[test]
fn the_command_line_chooses_formats_and_sums() {
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    let appliance = open(&folder);
    let wishes = Wishes {
        formats: vec![ImageFormat::Raw],
        raw_sums: true,
        ..Wishes::default()
    };
    let lock = sample::lock(&appliance);
    let plan = BuildPlan::resolve(&appliance, &lock, &builder(), &wishes).expect("a plan");
    let [image] = plan.images.as_slice() else {
        panic!("one image")
    };
    assert_eq!(image.file_name, "wiki.raw");
    assert_eq!(image.sum, FileSum::Compute);
    let usual = resolve(&appliance);
    assert_ne!(plan.outputs_digest(), usual.outputs_digest());
    assert_eq!(plan.digest(), usual.digest(), "the disk inside is the same");
}

#[test]
fn how_the_disk_is_packed_is_not_part_of_the_disk() {
    let before = plan_of(MINIMAL);
    for outputs in [
        "formats = [\"raw\"]",
        "qcow2_compression = \"zstd\"",
        "formats = [\"raw.zst\"]\nzstd_level = 9",
    ] {
        let plan = plan_of(&and(&format!("[outputs]\n{outputs}\n")));
        assert_eq!(plan.boot, before.boot);
        assert_eq!(plan.digest(), before.digest());
        assert_ne!(plan.outputs_digest(), before.outputs_digest());
    }
}
