//! Partition types by name, and the attribute bits of a partition.
//!
//! Source: UAPI Group, "The Discoverable Partitions Specification"; UEFI
//! Specification 2.10, section 5.3.3.

use crate::units::Guid;

macro_rules! partition_types {
    ($($(#[$doc:meta])* $constant:ident, $name:literal, $guid:literal;)+) => {
        $(
            $(#[$doc])*
            pub const $constant: Guid = Guid::from_u128($guid);
        )+

        /// Every type of this table with its name in the specification.
        pub const NAMED: &[(&str, Guid)] = &[$(($name, $constant)),+];
    };
}

partition_types! {
    /// EFI system partition.
    ESP, "esp", 0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b;
    /// Extended boot loader partition.
    XBOOTLDR, "xbootldr", 0xbc13c2ff_59e6_4262_a352_b275fd6f7172;
    /// Where GRUB's `core.img` lies for a BIOS ("Hah!IdontNeedEFI").
    BIOS_BOOT, "bios", 0x21686148_6449_6e6f_744e_656564454649;
    /// Root for x86-64.
    ROOT_X86_64, "root-x86-64", 0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709;
    /// dm-verity hashes of a root for x86-64.
    ROOT_X86_64_VERITY, "root-x86-64-verity", 0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5;
    /// Signature of the root hash of a root for x86-64.
    ROOT_X86_64_VERITY_SIG, "root-x86-64-verity-sig", 0x41092b05_9fc8_4523_994f_2def0408b176;
    /// Root for 64-bit ARM.
    ROOT_ARM64, "root-arm64", 0xb921b045_1df0_41c3_af44_4c6f280d3fae;
    /// dm-verity hashes of a root for 64-bit ARM.
    ROOT_ARM64_VERITY, "root-arm64-verity", 0xdf3300ce_d69f_4c92_978c_9bfb0f38d820;
    /// `/usr` for x86-64.
    USR_X86_64, "usr-x86-64", 0x8484680c_9521_48c6_9c11_b0720656f69e;
    /// dm-verity hashes of a `/usr` for x86-64.
    USR_X86_64_VERITY, "usr-x86-64-verity", 0x77ff5f63_e7b6_4633_acf4_1565b864c0e6;
    /// `/home`.
    HOME, "home", 0x933ac7e1_2eb4_4f13_b844_0e14e2aef915;
    /// `/srv`.
    SRV, "srv", 0x3b8f8425_20e0_4f3b_907f_1a25a76f98e8;
    /// `/var`.
    VAR, "var", 0x4d21b016_b534_45c2_a9fb_5c16e091fd2d;
    /// `/var/tmp`.
    TMP, "tmp", 0x7ec6f557_3bc5_4aca_b293_16ef5df639d1;
    /// Swap space.
    SWAP, "swap", 0x0657fd6d_a4ab_43c4_84e5_0933c84b4f4f;
    /// Any Linux file system that nothing mounts by itself.
    LINUX, "linux-generic", 0x0fc63daf_8483_4772_8e79_3d69d8477de4;
}

/// The name of a type in the specification, `root-x86-64` for example.
#[must_use]
pub fn name_of(type_guid: Guid) -> Option<&'static str> {
    let named = NAMED.iter().find(|(_, guid)| *guid == type_guid)?;
    Some(named.0)
}

bitflags::bitflags! {
    /// Attribute bits of a partition.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Attributes: u64 {
        /// The platform needs the partition; tools should not remove it.
        const REQUIRED = 1 << 0;
        /// A BIOS boot loader may take it for active.
        const LEGACY_BOOT = 1 << 2;
        /// The file system is to be grown to the partition when mounted.
        const GROW_FILE_SYSTEM = 1 << 59;
        /// To be mounted read-only.
        const READ_ONLY = 1 << 60;
        /// Not to be found or mounted automatically.
        const NO_AUTO = 1 << 63;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_distinct_and_found_by_name() {
        for (index, (name, guid)) in NAMED.iter().enumerate() {
            assert_eq!(
                name_of(*guid),
                Some(*name),
                "an earlier type has the same GUID"
            );
            assert!(NAMED[..index].iter().all(|(other, _)| other != name));
        }
        assert_eq!(name_of(Guid::from_u128(1)), None);
        let bios: Vec<u8> = BIOS_BOOT.bytes().to_vec();
        // On disk the first three fields are little endian, and read "Hah!IdontNeedEFI".
        let on_disk =
            [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| bios[at]);
        assert_eq!(&on_disk, b"Hah!IdontNeedEFI");
    }
}
