//! The part of Debian's kernel that no hypervisor has a use for, by name.
//!
//! Three quarters of the generic kernel's modules drive hardware that no
//! virtual machine shows. They are not unpacked, so that depmod does not know
//! them either: the image gets smaller, and no device asks for them at boot,
//! where each module costs a signature check.
//!
//! Checked against Debian's 6.1 kernel: no module that stays needs one that
//! goes. What a guest may be given through PCI passthrough stays (the network
//! cards of Intel, Mellanox and Broadcom's NetXtreme-E).

/// Folders of modules, as dpkg's paths have them on either side of the merge.
const FOLDERS: [&str; 2] = ["/lib/modules/*/kernel", "/usr/lib/modules/*/kernel"];

/// dpkg path patterns of what is not unpacked, and of its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeanKernel {
    /// For `exclude_paths` of a packages layer.
    pub exclude: Vec<String>,
    /// For `include_paths` of a packages layer.
    pub include: Vec<String>,
}

/// The patterns for Debian's kernel packages.
#[must_use]
pub fn lean_kernel() -> LeanKernel {
    let everywhere = |patterns: &[&str]| -> Vec<String> {
        let below = |pattern: &&str| FOLDERS.map(|folder| format!("{folder}/{pattern}"));
        patterns.iter().flat_map(below).collect()
    };
    LeanKernel {
        exclude: NOT_NEEDED
            .iter()
            .flat_map(|(_, patterns)| everywhere(patterns))
            .collect(),
        include: everywhere(NEEDED),
    }
}

/// Why, and which modules. `*` matches any characters, slashes too.
const NOT_NEEDED: &[(&str, &[&str])] = &[
    (
        "network cards no hypervisor has",
        &[
            "drivers/net/ethernet/3com/*",
            "drivers/net/ethernet/adaptec/*",
            "drivers/net/ethernet/agere/*",
            "drivers/net/ethernet/alteon/*",
            "drivers/net/ethernet/aquantia/*",
            "drivers/net/ethernet/atheros/*",
            "drivers/net/ethernet/broadcom/b44.ko",
            "drivers/net/ethernet/broadcom/bnx2*",
            "drivers/net/ethernet/broadcom/cnic.ko",
            "drivers/net/ethernet/broadcom/tg3.ko",
            "drivers/net/ethernet/brocade/*",
            "drivers/net/ethernet/cavium/*",
            "drivers/net/ethernet/chelsio/*",
            "drivers/net/ethernet/cisco/*",
            "drivers/net/ethernet/dlink/*",
            "drivers/net/ethernet/emulex/*",
            "drivers/net/ethernet/fujitsu/*",
            "drivers/net/ethernet/huawei/*",
            "drivers/net/ethernet/marvell/*",
            "drivers/net/ethernet/micrel/*",
            "drivers/net/ethernet/microchip/*",
            "drivers/net/ethernet/myricom/*",
            "drivers/net/ethernet/natsemi/*",
            "drivers/net/ethernet/neterion/*",
            "drivers/net/ethernet/netronome/*",
            "drivers/net/ethernet/nvidia/*",
            "drivers/net/ethernet/packetengines/*",
            "drivers/net/ethernet/qlogic/*",
            "drivers/net/ethernet/rdc/*",
            "drivers/net/ethernet/sfc/*",
            "drivers/net/ethernet/silan/*",
            "drivers/net/ethernet/sis/*",
            "drivers/net/ethernet/smsc/*",
            "drivers/net/ethernet/stmicro/*",
            "drivers/net/ethernet/sun/*",
            "drivers/net/ethernet/tehuti/*",
            "drivers/net/ethernet/ti/*",
            "drivers/net/ethernet/via/*",
            "drivers/net/ethernet/xircom/*",
            "drivers/target/iscsi/cxgbit/*",
        ],
    ),
    (
        "controllers no hypervisor has",
        &[
            "drivers/scsi/3w-*",
            "drivers/scsi/advansys.ko",
            "drivers/scsi/aic7xxx/*",
            "drivers/scsi/aic94xx/*",
            "drivers/scsi/arcmsr/*",
            "drivers/scsi/be2iscsi/*",
            "drivers/scsi/bfa/*",
            "drivers/scsi/bnx2fc/*",
            "drivers/scsi/bnx2i/*",
            "drivers/scsi/csiostor/*",
            "drivers/scsi/cxgbi/*",
            "drivers/scsi/esas2r/*",
            "drivers/scsi/fcoe/*",
            "drivers/scsi/fnic/*",
            "drivers/scsi/isci/*",
            "drivers/scsi/lpfc/*",
            "drivers/scsi/mvsas/*",
            "drivers/scsi/pcmcia/*",
            "drivers/scsi/pm8001/*",
            "drivers/scsi/qedf/*",
            "drivers/scsi/qedi/*",
            "drivers/scsi/qla2xxx/*",
            "drivers/scsi/qla4xxx/*",
            "drivers/scsi/snic/*",
        ],
    ),
    (
        "foreign file systems",
        &[
            "fs/adfs/*",
            "fs/affs/*",
            "fs/afs/*",
            "fs/befs/*",
            "fs/bfs/*",
            "fs/coda/*",
            "fs/efs/*",
            "fs/freevxfs/*",
            "fs/hfs/*",
            "fs/hfsplus/*",
            "fs/hpfs/*",
            "fs/jfs/*",
            "fs/minix/*",
            "fs/nilfs2/*",
            "fs/omfs/*",
            "fs/qnx4/*",
            "fs/qnx6/*",
            "fs/reiserfs/*",
            "fs/romfs/*",
            "fs/sysv/*",
            "fs/ufs/*",
            "net/rxrpc/*",
        ],
    ),
    (
        "no radios",
        &[
            "drivers/bluetooth/*",
            "drivers/net/hamradio/*",
            "drivers/net/ieee802154/*",
            "drivers/net/wireless/*",
            "drivers/net/wwan/*",
            "drivers/nfc/*",
            "net/6lowpan/*",
            "net/ax25/*",
            "net/bluetooth/*",
            "net/ieee802154/*",
            "net/mac80211/*",
            "net/mac802154/*",
            "net/netrom/*",
            "net/nfc/*",
            "net/rose/*",
            "net/wireless/*",
        ],
    ),
    (
        "no graphics cards",
        &[
            "drivers/gpu/drm/amd/*",
            "drivers/gpu/drm/ast/*",
            "drivers/gpu/drm/display/*",
            "drivers/gpu/drm/gma500/*",
            "drivers/gpu/drm/i2c/*",
            "drivers/gpu/drm/i915/*",
            "drivers/gpu/drm/mgag200/*",
            "drivers/gpu/drm/nouveau/*",
            "drivers/gpu/drm/radeon/*",
            "drivers/gpu/drm/udl/*",
            "drivers/gpu/drm/vgem/*",
            "drivers/video/fbdev/*",
        ],
    ),
    (
        "no card slots",
        &[
            "drivers/ata/pata_pcmcia.ko",
            "drivers/char/pcmcia/*",
            "drivers/memstick/*",
            "drivers/mmc/*",
            "drivers/net/ethernet/8390/*_cs.ko",
            "drivers/net/ethernet/amd/nmclan_cs.ko",
            "drivers/pcmcia/*",
            "drivers/tty/ipwireless/*",
            "drivers/tty/serial/8250/serial_cs.ko",
            "drivers/usb/host/sl811*",
            "drivers/usb/host/u132-hcd.ko",
        ],
    ),
    (
        "for hosts",
        &[
            "arch/x86/kvm/*",
            "drivers/block/xen-blkback/*",
            "drivers/net/xen-netback/*",
            "drivers/nvme/target/*",
            "drivers/usb/usbip/*",
            "drivers/vhost/*",
            "drivers/xen/xen-pciback/*",
        ],
    ),
    (
        "no sensors",
        &[
            "drivers/hid/amd-sfh-hid/*",
            "drivers/hid/intel-ish-hid/*",
            "drivers/hwmon/*",
            "drivers/i2c/busses/*",
            "drivers/i2c/i2c-smbus.ko",
            "drivers/iio/*",
            "drivers/w1/*",
        ],
    ),
    (
        "no InfiniBand",
        &[
            "drivers/infiniband/*",
            "drivers/nvme/host/nvme-rdma.ko",
            "net/9p/9pnet_rdma.ko",
            "net/rds/*",
            "net/smc/*",
            "net/sunrpc/xprtrdma/*",
        ],
    ),
    (
        "no printers",
        &[
            "drivers/char/lp.ko",
            "drivers/char/ppdev.ko",
            "drivers/input/serio/parkbd.ko",
            "drivers/net/plip/*",
            "drivers/parport/*",
            "drivers/pps/clients/pps_parport.ko",
        ],
    ),
    (
        "cluster file systems",
        &[
            "drivers/md/md-cluster.ko",
            "fs/dlm/*",
            "fs/gfs2/*",
            "fs/ocfs2/*",
            "fs/orangefs/*",
        ],
    ),
    (
        "no modems",
        &[
            "drivers/bus/mhi/*",
            "drivers/char/mwave/*",
            "drivers/net/mhi_net.ko",
            "drivers/usb/atm/*",
            "net/qrtr/*",
        ],
    ),
    (
        "no such memory",
        &[
            "drivers/acpi/nfit/*",
            "drivers/cxl/*",
            "drivers/dax/*",
            "drivers/nvdimm/*",
        ],
    ),
    (
        "protocols nobody speaks",
        &[
            "drivers/net/appletalk/*",
            "net/appletalk/*",
            "net/dccp/*",
            "net/lapb/*",
        ],
    ),
    (
        "no bare flash",
        &["drivers/mtd/*", "fs/jffs2/*", "fs/ubifs/*"],
    ),
    (
        "no sound",
        &[
            "drivers/base/regmap/regmap-sdw*",
            "drivers/soundwire/*",
            "sound/*",
        ],
    ),
    (
        "no such boards",
        &["drivers/gpio/*", "drivers/mfd/*", "drivers/pinctrl/*"],
    ),
    (
        "no such bus",
        &["drivers/bcma/*", "drivers/spi/*", "drivers/ssb/*"],
    ),
    ("no ATM", &["drivers/atm/*", "net/atm/*"]),
    ("no CAN bus", &["drivers/net/can/*", "net/can/*"]),
    (
        "no Fibre Channel",
        &["drivers/nvme/host/nvme-fc.ko", "drivers/target/tcm_fc/*"],
    ),
    (
        "no FireWire",
        &["drivers/firewire/*", "drivers/target/sbp/*"],
    ),
    (
        "no Thunderbolt",
        &["drivers/net/thunderbolt-net.ko", "drivers/thunderbolt/*"],
    ),
    (
        "no games",
        &["drivers/input/gameport/*", "drivers/input/joystick/*"],
    ),
    (
        "no leased lines",
        &["drivers/net/wan/*", "drivers/tty/synclink*"],
    ),
    (
        "no panels",
        &["drivers/acpi/video.ko", "drivers/video/backlight/*"],
    ),
    (
        "no such cards",
        &["drivers/block/mtip32xx/*", "drivers/ptp/ptp_ocp.ko"],
    ),
    (
        "no such chip sets",
        &["drivers/dma/*", "drivers/tty/serial/8250/8250_lpss.ko"],
    ),
    (
        "the host has the management controller",
        &["drivers/acpi/acpi_ipmi.ko", "drivers/char/ipmi/*"],
    ),
    (
        "the host sets frequencies",
        &["drivers/cpufreq/*", "drivers/powercap/*"],
    ),
    ("Samba is the server", &["fs/smb/server/*"]),
    ("a test", &["drivers/scsi/scsi_debug.ko"]),
    ("cluster protocols", &["net/tipc/*"]),
    ("for kernel developers", &["drivers/hwtracing/*"]),
    ("keyboards are generic", &["drivers/hid/hid-*"]),
    ("laptops and boards", &["drivers/platform/*"]),
    ("mesh networks", &["net/batman-adv/*"]),
    ("no ARCNET", &["drivers/net/arcnet/*"]),
    ("no ATA over Ethernet", &["drivers/block/aoe/*"]),
    ("no Android", &["drivers/android/*"]),
    ("no FDDI", &["drivers/net/fddi/*"]),
    ("no Fujitsu servers", &["drivers/net/fjes/*"]),
    ("no USB adapters", &["drivers/usb/serial/*"]),
    ("no USB gadgets", &["drivers/usb/misc/*"]),
    ("no USB network cards", &["drivers/net/usb/*"]),
    ("no USB-C ports", &["drivers/usb/typec/*"]),
    ("no batteries", &["drivers/power/*"]),
    ("no cameras and tuners", &["drivers/media/*"]),
    ("no laboratory instruments", &["drivers/comedi/*"]),
    ("no laptops", &["drivers/hid/surface-hid/*"]),
    ("no lights", &["drivers/leds/*"]),
    (
        "no performance counters of the bare CPU",
        &["arch/x86/events/*"],
    ),
    ("no phone flash", &["drivers/ufs/*"]),
    ("no raw PS/2 ports", &["drivers/input/serio/serio_raw.ko"]),
    ("no scanners", &["drivers/usb/image/*"]),
    ("no serial cards", &["drivers/tty/serial/jsm/*"]),
    ("no speaker", &["drivers/input/misc/pcspkr.ko"]),
    ("no speech synthesizers", &["drivers/accessibility/*"]),
    ("no such accelerators", &["drivers/crypto/*"]),
    ("no such plugs", &["drivers/extcon/*"]),
    ("no tablets", &["drivers/input/tablet/*"]),
    ("no telephone lines", &["drivers/isdn/*"]),
    ("no telephones", &["net/phonet/*"]),
    ("no touch pads", &["drivers/input/rmi4/*"]),
    ("no touch screens", &["drivers/input/touchscreen/*"]),
    ("phone flash", &["fs/f2fs/*"]),
    (
        "replication is the host's business",
        &["drivers/block/drbd/*"],
    ),
    ("telephone networks", &["net/sctp/*"]),
    ("tests", &["lib/test_*"]),
    ("the console is text", &["drivers/input/mouse/*"]),
    ("the host cools", &["drivers/thermal/*"]),
    (
        "the host has the management engine",
        &["drivers/misc/mei/*"],
    ),
    ("the host watches its memory", &["drivers/edac/*"]),
    ("unfinished drivers", &["drivers/staging/*"]),
    ("watchdogs of bare boards", &["drivers/watchdog/*"]),
    ("we are no USB device", &["drivers/usb/gadget/*"]),
];

/// What the patterns above must not take: keyboards, and the watchdogs that
/// QEMU emulates.
const NEEDED: &[&str] = &[
    "drivers/hid/hid-generic.ko",
    "drivers/hid/hid-hyperv.ko",
    "drivers/watchdog/i6300esb.ko",
    "drivers/watchdog/ib700wdt.ko",
    "drivers/watchdog/softdog.ko",
    "drivers/watchdog/watchdog.ko",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_dpkg_paths() {
        let lean = lean_kernel();
        for pattern in lean.exclude.iter().chain(&lean.include) {
            assert!(pattern.starts_with('/') && pattern.contains("/modules/*/kernel/"));
        }
        assert!(
            lean.exclude
                .contains(&"/lib/modules/*/kernel/sound/*".into())
        );
        assert!(
            lean.include
                .contains(&"/usr/lib/modules/*/kernel/drivers/hid/hid-generic.ko".into())
        );
    }

    #[test]
    fn no_pattern_is_listed_twice() {
        let mut patterns = lean_kernel().exclude;
        let all = patterns.len();
        patterns.sort();
        patterns.dedup();
        assert_eq!(patterns.len(), all);
    }

    #[test]
    fn no_driver_of_the_initramfs_is_left_out_by_its_folder() {
        for (_, patterns) in NOT_NEEDED {
            for kept in [
                "fs/ext4",
                "drivers/ata",
                "drivers/virtio",
                "drivers/block/*",
                "drivers/scsi/*",
            ] {
                assert!(
                    !patterns
                        .iter()
                        .any(|pattern| pattern.trim_end_matches("/*") == kept)
                );
            }
        }
    }
}
