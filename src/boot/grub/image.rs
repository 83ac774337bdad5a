//! `boot.img` and `core.img`, as grub-bios-setup would leave them on a disk.
//!
//! Source: GRUB 2.06, `include/grub/offsets.h`, `include/grub/i386/pc/boot.h`,
//! `grub-core/boot/i386/pc/{boot,diskboot}.S`, `util/setup.c`. Little endian.
//! Every field that is not changed and that we depend on is compared with
//! what a known GRUB has there, so that another GRUB is an error and not a
//! disk that hangs.

use super::super::error::BootError;

/// The first sector of `core.img` on the disk: where partition `bios` starts.
pub(in super::super) const CORE_IMAGE_LBA: u64 = 2048;
/// `core.img` must fit the partition `bios`.
const CORE_IMAGE_MOST: u64 = 1 << 20;

const SECTOR: usize = 512;
/// Boot code ends where the disk identifier and the partition table begin.
const MBR_CODE: usize = 440;

/// `GRUB_BOOT_MACHINE_KERNEL_ADDR`: u16, where the first sector of core.img is loaded.
const BOOT_KERNEL_ADDRESS: usize = 0x5a;
/// `GRUB_BOOT_MACHINE_KERNEL_SECTOR`: u64, where it is on the disk.
const BOOT_KERNEL_SECTOR: usize = 0x5c;
/// `GRUB_BOOT_MACHINE_BOOT_DRIVE`: u8, 0xff means the drive that BIOS names.
const BOOT_DRIVE: usize = 0x64;
/// `GRUB_BOOT_MACHINE_DRIVE_CHECK`: a jump over the check for BIOSes that
/// name the drive wrongly; two NOPs turn the check on, as on every hard disk.
const BOOT_DRIVE_CHECK: usize = 0x66;
/// The signature of a boot sector.
const BOOT_SIGNATURE: usize = 0x1fe;
const NOP: u8 = 0x90;

/// `diskboot.S`, last block list: u64 first sector of the rest, u16 its
/// length in sectors, u16 segment it is loaded to.
const BLOCK_LIST_START: usize = 0x1f4;
const BLOCK_LIST_LENGTH: usize = 0x1fc;
const BLOCK_LIST_SEGMENT: usize = 0x1fe;
/// `GRUB_BOOT_MACHINE_KERNEL_SEG` + 0x20.
const REST_SEGMENT: u64 = 0x820;

/// What runs before a file system can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootCode {
    /// For the first 440 bytes of the disk.
    pub mbr: [u8; MBR_CODE],
    /// For the partition `bios`, from its first sector (LBA 2048) on; whole sectors.
    pub core_image: Vec<u8>,
}

/// One field: where, how wide in bytes, what a known GRUB has.
struct Known {
    image: &'static str,
    offset: usize,
    width: usize,
    value: u64,
}

impl Known {
    fn check(&self, bytes: &[u8]) -> Result<(), BootError> {
        let field = bytes.get(self.offset..self.offset + self.width);
        let found = field
            .unwrap_or_default()
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        if found == self.value {
            return Ok(());
        }
        Err(BootError::UnknownGrub {
            image: self.image,
            offset: self.offset,
            expected: self.value,
            found,
        })
    }
}

/// Makes the two images fit together on a disk.
///
/// # Errors
///
/// [`BootError::GrubSize`] and [`BootError::UnknownGrub`] when they are not
/// the images of a GRUB that we know.
pub(in super::super) fn patch(boot: &[u8], mut core: Vec<u8>) -> Result<BootCode, BootError> {
    check_size("boot.img", boot, SECTOR as u64, SECTOR as u64)?;
    check_size("core.img", &core, 2 * SECTOR as u64, CORE_IMAGE_MOST)?;
    core.resize(core.len().next_multiple_of(SECTOR), 0);
    check_known(boot, &core)?;

    let mut mbr = [0; MBR_CODE];
    mbr.copy_from_slice(&boot[..MBR_CODE]);
    mbr[BOOT_KERNEL_SECTOR..][..8].copy_from_slice(&CORE_IMAGE_LBA.to_le_bytes());
    mbr[BOOT_DRIVE_CHECK..][..2].copy_from_slice(&[NOP, NOP]);
    let rest = CORE_IMAGE_LBA + 1;
    core[BLOCK_LIST_START..][..8].copy_from_slice(&rest.to_le_bytes());
    Ok(BootCode {
        mbr,
        core_image: core,
    })
}

fn check_known(boot: &[u8], core: &[u8]) -> Result<(), BootError> {
    let rest_sectors = (core.len() / SECTOR - 1) as u64;
    let boot_field = |offset, width, value| Known {
        image: "boot.img",
        offset,
        width,
        value,
    };
    let core_field = |offset, width, value| Known {
        image: "core.img",
        offset,
        width,
        value,
    };
    for known in [
        boot_field(BOOT_KERNEL_ADDRESS, 2, 0x8000),
        boot_field(BOOT_KERNEL_SECTOR, 8, 1),
        boot_field(BOOT_DRIVE, 1, 0xff),
        boot_field(BOOT_DRIVE_CHECK, 1, 0xeb),
        boot_field(BOOT_SIGNATURE, 2, 0xaa55),
    ] {
        known.check(boot)?;
    }
    for known in [
        core_field(BLOCK_LIST_START, 8, 2),
        core_field(BLOCK_LIST_LENGTH, 2, rest_sectors),
        core_field(BLOCK_LIST_SEGMENT, 2, REST_SEGMENT),
    ] {
        known.check(core)?;
    }
    Ok(())
}

fn check_size(image: &'static str, bytes: &[u8], least: u64, most: u64) -> Result<(), BootError> {
    let size = bytes.len() as u64;
    if (least..=most).contains(&size) {
        return Ok(());
    }
    Err(BootError::GrubSize {
        image,
        size,
        least,
        most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_img() -> Vec<u8> {
        let mut image = vec![0; SECTOR];
        image[0..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
        image[0x5a..0x5c].copy_from_slice(&[0x00, 0x80]);
        image[0x5c] = 1;
        image[0x64] = 0xff;
        image[0x66..0x68].copy_from_slice(&[0xeb, 0x05]);
        image[0x1be] = 0x42;
        image[0x1fe..].copy_from_slice(&[0x55, 0xaa]);
        image
    }

    fn core_img() -> Vec<u8> {
        let mut image = vec![7; 1300];
        image[0x1f4..0x200].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 0x08]);
        image
    }

    #[test]
    fn exactly_the_measured_bytes_are_changed() {
        let code = patch(&boot_img(), core_img()).expect("known images");
        let mut expected = boot_img();
        expected[0x5c..0x64].copy_from_slice(&[0, 8, 0, 0, 0, 0, 0, 0]);
        expected[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
        assert_eq!(code.mbr[..], expected[..440]);
        assert_eq!(code.core_image.len(), 1536);
        assert_eq!(code.core_image[0x1f4..0x1fc], [1, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(code.core_image[0x1fc..0x200], core_img()[0x1fc..0x200]);
        assert_eq!(code.core_image[512..1300], core_img()[512..]);
        assert!(code.core_image[1300..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn another_grub_is_refused_field_by_field() {
        for offset in [0x5a, 0x5c, 0x64, 0x66, 0x1fe] {
            let mut boot = boot_img();
            boot[offset] ^= 0x10;
            let error = patch(&boot, core_img()).expect_err("a field differs");
            assert!(
                error.to_string().starts_with("`boot.img` has 0x"),
                "{error}"
            );
        }
        for offset in [0x1f4, 0x1fc, 0x1fe] {
            let mut core = core_img();
            core[offset] ^= 0x10;
            let error = patch(&boot_img(), core).expect_err("a field differs");
            assert!(
                error.to_string().starts_with("`core.img` has 0x"),
                "{error}"
            );
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert!(matches!(
            patch(&boot_img()[..511], core_img()),
            Err(BootError::GrubSize { .. })
        ));
        assert!(matches!(
            patch(&boot_img(), vec![0; 600]),
            Err(BootError::GrubSize { .. })
        ));
        assert!(matches!(
            patch(&boot_img(), vec![0; (1 << 20) + 1]),
            Err(BootError::GrubSize { .. })
        ));
    }
}
