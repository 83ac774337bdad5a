//! `[disk]` and `[machine]`: whether what is asked for fits together.

use std::num::NonZeroU32;
use std::ops::Range;

use toml::Spanned;

use super::value::{named, repeated, size, table, whole, word, words};
use crate::appliance::diagnostic::Diagnostic;
use crate::appliance::fields::Problems;
use crate::appliance::model::{DiskLayout, DiskProfile, Firmware, MachineFacts, UserDisk};
use crate::appliance::names::Name;
use crate::appliance::written::{WrittenDisk, WrittenMachine, WrittenUserDisk};
use crate::units::{ByteSize, GIB, TIB};

/// The historic importer has four IDE places: system, config disk, and two.
const USER_DISKS: usize = 2;

/// Ids that descriptors use for the other disks.
const RESERVED_DISKS: &[&str] = &["system", "config"];

pub(super) fn disk(written: &WrittenDisk, problems: &mut Problems) -> Option<DiskLayout> {
    const PARTITION: (ByteSize, ByteSize) = (ByteSize::from_mib(64), ByteSize::from_bytes(8 * TIB));
    const ESP: (ByteSize, ByteSize) = (ByteSize::from_mib(64), ByteSize::from_bytes(2 * GIB));
    const DISK: (ByteSize, ByteSize) = (ByteSize::from_mib(256), ByteSize::from_bytes(16 * TIB));
    let is_ab = match &written.profile {
        Some(text) => word(
            text,
            "disk profile",
            &[("ab", true), ("single", false)],
            problems,
        ),
        None => Some(true),
    };
    let esp = size(
        written.esp.as_ref(),
        "esp",
        ByteSize::from_mib(256),
        ESP,
        problems,
    );
    let root = size(
        written.root.as_ref(),
        "root",
        ByteSize::from_mib(2048),
        PARTITION,
        problems,
    );
    let var = size(
        written.var.as_ref(),
        "var",
        ByteSize::from_mib(1024),
        PARTITION,
        problems,
    );
    let whole = match &written.size {
        Some(_) => size(
            written.size.as_ref(),
            "size",
            ByteSize::ZERO,
            DISK,
            problems,
        )
        .map(Some),
        None => Some(None),
    };
    let profile = if is_ab? {
        DiskProfile::Ab { var: var? }
    } else {
        if let Some(var) = &written.var {
            problems.push(
                Diagnostic::at(var.span(), "the disk profile `single` has no `var`")
                    .help("remove the line; state lives on the root"),
            );
        }
        DiskProfile::Single
    };
    let layout = DiskLayout {
        profile,
        esp: esp?,
        root: root?,
        size: whole?,
    };
    let place = written.size.as_ref().map(Spanned::span);
    fits(&layout, place.or(written.header.clone()), problems).then_some(layout)
}

/// Whether all partitions fit the disk; says by how much they do not.
fn fits(layout: &DiskLayout, place: Option<Range<usize>>, problems: &mut Problems) -> bool {
    let least = layout.least().unwrap_or(ByteSize::from_bytes(u64::MAX));
    let Some(size) = layout.size.filter(|size| *size < least) else {
        return true;
    };
    let missing = ByteSize::from_bytes(least.bytes() - size.bytes());
    let var = match layout.profile {
        DiskProfile::Ab { var } => format!(", root {0} twice, var {var}", layout.root),
        DiskProfile::Single => format!(", root {}", layout.root),
    };
    let message = format!(
        "the disk is {size}, its partitions need {missing} more: esp {}{var}, and {} for the \
         partition table and the BIOS loader",
        layout.esp,
        ByteSize::from_bytes(
            DiskLayout::HEAD.bytes() + DiskLayout::BIOS.bytes() + DiskLayout::TAIL.bytes()
        ),
    );
    let help = format!(
        "write `size = \"{}MiB\"`, or leave `size` out to fit the partitions",
        least.mib_ceil()
    );
    problems.push(
        match place {
            Some(place) => Diagnostic::at(place, message),
            None => Diagnostic::whole(message),
        }
        .help(help),
    );
    false
}

pub(super) fn machine(written: &WrittenMachine, problems: &mut Problems) -> Option<MachineFacts> {
    const MEMORY: (ByteSize, ByteSize) = (ByteSize::from_mib(256), ByteSize::from_bytes(4 * TIB));
    let memory = size(
        written.memory.as_ref(),
        "memory",
        ByteSize::from_mib(1024),
        MEMORY,
        problems,
    );
    let vcpus = whole(written.vcpus.as_ref(), "vcpus", 1, (1, 256), problems);
    let nics = whole(written.nics.as_ref(), "nics", 1, (0, 8), problems);
    let firmware = match &written.firmware {
        Some(texts) => words(texts, "firmware", table!(Firmware), problems),
        None => Some(vec![Firmware::UefiSecure, Firmware::Uefi, Firmware::Bios]),
    };
    let disks = user_disks(written, problems);
    Some(MachineFacts {
        memory: memory?,
        vcpus: NonZeroU32::new(vcpus?)?,
        nics: nics?,
        graphics: written.graphics.as_ref().is_none_or(|yes| *yes.get_ref()),
        firmware: firmware?,
        disks: disks?,
    })
}

fn user_disks(written: &WrittenMachine, problems: &mut Problems) -> Option<Vec<UserDisk>> {
    const DISK: (ByteSize, ByteSize) = (ByteSize::from_mib(1), ByteSize::from_bytes(16 * TIB));
    let mut disks: Vec<UserDisk> = Vec::new();
    let before = problems.len();
    for (at, disk) in written.disks.iter().enumerate() {
        let size = disk
            .size
            .as_ref()
            .and_then(|text| size(Some(text), "size", ByteSize::ZERO, DISK, problems));
        let Some(name) = disk
            .name
            .as_ref()
            .and_then(|text| disk_name(text, at, &written.disks, problems))
        else {
            continue;
        };
        disks.extend(size.map(|size| UserDisk { name, size }));
    }
    (problems.len() == before && disks.len() == written.disks.len()).then_some(disks)
}

fn disk_name(
    text: &Spanned<String>,
    at: usize,
    all: &[WrittenUserDisk],
    problems: &mut Problems,
) -> Option<Name> {
    let name = named(text, "disk name", Name::ALLOWED, Name::check, problems)?;
    if RESERVED_DISKS.contains(&name.as_str()) {
        problems.push(
            Diagnostic::at(text.span(), format!("the disk name `{name}` is taken"))
                .help("choose another name, `data` for example"),
        );
    }
    let before = all.iter().take(at).filter_map(|disk| disk.name.as_ref());
    if before
        .into_iter()
        .any(|other| other.get_ref() == text.get_ref())
    {
        problems.push(repeated(text, "disk name"));
    }
    if at == USER_DISKS {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!("more than {USER_DISKS} disks of the customer's"),
            )
            .help("a guest has four IDE places: the system, the config disk and two more"),
        );
    }
    Some(name)
}
