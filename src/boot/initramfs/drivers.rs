//! The drivers that `/init` may need before there is a root, by name.
//!
//! Names are those of Debian's kernel, `-` and `_` being the same. What a
//! kernel does not have (the cloud kernel has no SATA) is left out, except
//! where it is [`Need::Always`].

/// When a driver is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Without it no root can be mounted: loaded on every machine.
    Always,
    /// Loaded on every machine when the kernel has it; it may refuse the machine.
    Offered,
    /// Loaded where a device asks for it.
    ByDevice,
}

/// One driver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Driver {
    pub(super) name: &'static str,
    pub(super) need: Need,
}

const fn always(name: &'static str) -> Driver {
    Driver {
        name,
        need: Need::Always,
    }
}

const fn offered(name: &'static str) -> Driver {
    Driver {
        name,
        need: Need::Offered,
    }
}

const fn on(name: &'static str) -> Driver {
    Driver {
        name,
        need: Need::ByDevice,
    }
}

/// All of them. The order is the order of loading where dependencies leave
/// it open: what most machines boot from comes first, because `/init` stops
/// loading when it has found its root.
pub(super) const DRIVERS: &[Driver] = &[
    // The root's file system. crc32c is asked for by name at mount time, and
    // there is no modprobe that could answer.
    offered("crc32c_intel"),
    offered("crc32c_generic"),
    always("ext4"),
    // KVM, QEMU, Proxmox, oVirt, Google.
    on("virtio_pci"),
    on("virtio_mmio"),
    on("virtio_blk"),
    on("virtio_scsi"),
    // SCSI disks and CD-ROMs behind any controller.
    on("sd_mod"),
    on("sr_mod"),
    // Bare metal, Amazon, VMware, QEMU.
    on("nvme"),
    // VirtualBox, VMware, Parallels, bare metal.
    on("ahci"),
    on("ata_piix"),
    on("ata_generic"),
    on("pata_acpi"),
    // VMware.
    on("vmw_pvscsi"),
    on("mptspi"),
    on("mptsas"),
    // Hyper-V and Azure. The bus driver speaks ACPI.
    on("hv_vmbus"),
    on("pci_hyperv"),
    on("hv_storvsc"),
    // Xen, XCP-ng.
    on("xen_blkfront"),
    on("xen_scsifront"),
    // Server controllers that QEMU emulates too.
    on("sym53c8xx"),
    on("mpt3sas"),
    on("megaraid_sas"),
    // Behind Intel's volume management on newer boards.
    on("vmd"),
    // USB disks.
    on("xhci_pci"),
    on("ehci_pci"),
    on("uhci_hcd"),
    on("ohci_pci"),
    on("usb_storage"),
    on("uas"),
    // Not for the root: the console that says why there is none, and
    // entropy for the machine's identity.
    on("virtio_console"),
    on("virtio_rng"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_driver_is_named_twice() {
        let mut names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|name| !name.contains('-')));
    }
}
