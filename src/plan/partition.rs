//! The partition table and the volumes in it: sizes, places, identifiers.

use super::build::Contents;
use super::error::PlanError;
use super::identity::Identity;
use crate::appliance::{DiskLayout, DiskProfile};
use crate::boot::{BIOS_PARTITION_LBA, Slots};
use crate::disk::{ALIGNMENT, Attributes, DiskSpec, PartitionSpec, SECTOR, types};
use crate::fs::ext4::Ext4Options;
use crate::fs::fat::{FatKind, FatOptions, VolumeLabel};
use crate::units::{ByteSize, Guid, Timestamp};

// GRUB's boot code has the place of the first partition built in.
const _: () = {
    assert!(DiskLayout::HEAD.bytes() == BIOS_PARTITION_LBA * SECTOR);
    assert!(DiskLayout::HEAD.bytes() == ALIGNMENT);
};

/// A disk and what belongs to it.
pub(super) struct Partitioned {
    pub(super) disk: DiskSpec,
    pub(super) contents: Vec<Contents>,
    pub(super) slots: Slots,
    pub(super) esp: FatOptions,
    pub(super) root: Ext4Options,
    pub(super) var: Option<Ext4Options>,
}

/// Places the partitions one behind the other; the last one gets the rest.
///
/// # Errors
///
/// [`PlanError::DiskTooLarge`].
pub(super) fn lay_out(
    layout: &DiskLayout,
    identity: &Identity,
    source_date: Timestamp,
) -> Result<Partitioned, PlanError> {
    let least = layout.least().ok_or(PlanError::DiskTooLarge)?;
    let size = layout.size.unwrap_or(least);
    let rest = size
        .bytes()
        .checked_sub(least.bytes())
        .map(ByteSize::from_bytes)
        .expect("the layout fits its disk: checked by the appliance room");
    let grown = |size: ByteSize| ByteSize::from_bytes(size.bytes() + rest.bytes());

    let mut table = Table::new(identity);
    table.add(
        "bios",
        types::BIOS_BOOT,
        DiskLayout::BIOS,
        Contents::CoreImage,
    );
    let esp = table.add("esp", types::ESP, layout.esp, Contents::Esp);
    let (slots, root, var) = match layout.profile {
        DiskProfile::Ab { var } => {
            let root_a = table.add("root-a", types::ROOT_X86_64, layout.root, Contents::Root);
            let root_b = table.add("root-b", types::ROOT_X86_64, layout.root, Contents::Nothing);
            let var_guid = table.add("var", types::VAR, grown(var), Contents::Var);
            let slots = Slots::Ab {
                esp,
                root_a,
                root_b,
                var: var_guid,
            };
            let var = volume("var", grown(var), identity, source_date);
            (
                slots,
                volume("root-a", layout.root, identity, source_date),
                Some(var),
            )
        }
        DiskProfile::Single => {
            let size = grown(layout.root);
            let root = table.add("root", types::ROOT_X86_64, size, Contents::Root);
            let slots = Slots::Single { esp, root };
            (slots, volume("root", size, identity, source_date), None)
        }
    };
    let (partitions, contents) = table.entries.into_iter().unzip();
    Ok(Partitioned {
        disk: DiskSpec {
            size,
            guid: identity.guid("disk"),
            partitions,
            boot_mbr: None,
        },
        contents,
        slots,
        esp: FatOptions {
            size: layout.esp,
            kind: FatKind::Auto,
            volume_id: identity.guid("volume:esp").short(),
            label: "ESP"
                .parse::<VolumeLabel>()
                .expect("three letters are a label"),
            source_date,
        },
        root,
        var,
    })
}

fn volume(role: &str, size: ByteSize, identity: &Identity, source_date: Timestamp) -> Ext4Options {
    let uuid = identity.guid(&format!("volume:{role}"));
    let seed = identity.guid(&format!("hash-seed:{role}"));
    Ext4Options {
        label: role.to_owned(),
        ..Ext4Options::new(size, uuid, seed, source_date)
    }
}

/// A table in the making.
struct Table<'i> {
    identity: &'i Identity,
    next: ByteSize,
    entries: Vec<(PartitionSpec, Contents)>,
}

impl<'i> Table<'i> {
    fn new(identity: &'i Identity) -> Self {
        Self {
            identity,
            next: DiskLayout::HEAD,
            entries: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, type_guid: Guid, size: ByteSize, contents: Contents) -> Guid {
        let guid = self.identity.guid(&format!("partition:{name}"));
        let start = self.next;
        self.next = ByteSize::from_bytes(start.bytes() + size.bytes());
        let attributes = match contents {
            // Nothing may take the empty root for one by its type.
            Contents::Nothing => Attributes::NO_AUTO,
            _ => Attributes::empty(),
        };
        let partition = PartitionSpec {
            name: name.to_owned(),
            type_guid,
            guid,
            start,
            size,
            attributes,
        };
        self.entries.push((partition, contents));
        guid
    }
}
