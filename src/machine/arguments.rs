//! From a [`GuestSpec`] to QEMU's arguments: a pure function.
//!
//! QEMU's own defaults are off (`-nodefaults`, `-no-user-config`); each device
//! is named. Disks are never probed for their format. A disk whose writes are
//! discarded is opened read-only below an overlay without a name.
//!
//! Source: QEMU 7.2, "Invocation".

use std::net::Ipv4Addr;
use std::path::Path;

use super::firmware::Ovmf;
use super::kvm::Accelerator;
use super::{
    Bus, Chipset, Disk, Firmware, Forward, GuestSpec, HotPlug, MachineError, Network, Subnet,
    Writes,
};

/// The root port that is kept for a disk that is attached later.
pub const HOT_PORT: &str = "hot0";

/// The arguments for the machine, without those for its consoles.
///
/// # Errors
///
/// [`MachineError::NoSuchBus`] and [`MachineError::Path`].
pub fn machine(
    spec: &GuestSpec,
    ovmf: Option<&Ovmf>,
    accelerator: Accelerator,
) -> Result<Vec<String>, MachineError> {
    let mut args = board(spec, accelerator);
    if let Some(ovmf) = ovmf {
        args.extend(firmware(spec.firmware, ovmf)?);
    }
    args.extend(disks(spec)?);
    if let Some(direct) = &spec.kernel {
        args.extend(["-kernel".into(), text(&direct.kernel)?.to_owned()]);
        if let Some(initrd) = &direct.initrd {
            args.extend(["-initrd".into(), text(initrd)?.to_owned()]);
        }
        args.extend(["-append".into(), direct.command_line.clone()]);
    }
    if let Some(network) = &spec.network {
        args.extend(user_network(network));
    }
    if let Some(log) = &spec.virtio_console {
        args.extend(virtio_console(log)?);
    }
    if spec.hot_plug == HotPlug::OneDisk && spec.chipset == Chipset::Q35 {
        args.extend([
            "-device".into(),
            format!("pcie-root-port,id={HOT_PORT},chassis=1"),
        ]);
    }
    Ok(args)
}

fn board(spec: &GuestSpec, accelerator: Accelerator) -> Vec<String> {
    let chipset = match spec.chipset {
        Chipset::Q35 => "q35",
        Chipset::Pc => "pc",
    };
    let secure = match spec.firmware {
        Firmware::UefiSecure => ",smm=on",
        _ => "",
    };
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        // Wide vector units cost time to imitate, and no Debian guest needs them.
        Accelerator::Tcg => ("tcg", "Nehalem"),
    };
    [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-machine",
        &format!("{chipset}{secure}"),
        "-accel",
        accel,
        "-cpu",
        cpu,
        "-smp",
        &spec.cpus.to_string(),
        "-m",
        &spec.memory.mib_ceil().to_string(),
        // Kernels have entropy at once, instead of gathering it from jitter.
        "-device",
        "virtio-rng-pci",
        "-display",
        "none",
    ]
    .map(str::to_owned)
    .into()
}

fn firmware(firmware: Firmware, ovmf: &Ovmf) -> Result<Vec<String>, MachineError> {
    let mut args = Vec::new();
    if firmware == Firmware::UefiSecure {
        args.extend(["-global", "driver=cfi.pflash01,property=secure,value=on"].map(str::to_owned));
    }
    let code = format!(
        "if=pflash,unit=0,format=raw,readonly=on,file={}",
        value(&ovmf.code)?
    );
    let variables = format!(
        "if=pflash,unit=1,format=raw,snapshot=on,file={}",
        value(&ovmf.variables)?
    );
    args.extend(["-drive".into(), code, "-drive".into(), variables]);
    Ok(args)
}

fn disks(spec: &GuestSpec) -> Result<Vec<String>, MachineError> {
    if spec.bus == Bus::Ide && spec.chipset == Chipset::Q35 {
        return Err(MachineError::NoSuchBus { bus: spec.bus });
    }
    let mut args: Vec<String> = Vec::new();
    if !spec.disks.is_empty()
        && let Some(controller) = controller(spec.bus)
    {
        args.extend(["-device".into(), controller.to_owned()]);
    }
    for (index, disk) in spec.disks.iter().enumerate() {
        args.extend(["-drive".into(), drive(index, disk)?]);
        args.extend(["-device".into(), device(spec.bus, index)]);
    }
    Ok(args)
}

fn drive(index: usize, disk: &Disk) -> Result<String, MachineError> {
    let writes = match disk.writes {
        Writes::Discarded => ",snapshot=on",
        Writes::Kept => "",
    };
    let format = disk.format.name();
    let file = value(&disk.path)?;
    Ok(format!(
        "if=none,id=d{index},format={format}{writes},file={file}"
    ))
}

/// The controller that disks of the bus hang from; `None` where each disk is
/// its own, or the board has one.
const fn controller(bus: Bus) -> Option<&'static str> {
    match bus {
        Bus::VirtioBlk | Bus::Nvme | Bus::Ide => None,
        Bus::VirtioScsi => Some("virtio-scsi-pci,id=c0"),
        Bus::Ahci => Some("ich9-ahci,id=c0"),
        Bus::Pvscsi => Some("pvscsi,id=c0"),
        Bus::Lsi53c895a => Some("lsi53c895a,id=c0"),
        Bus::Mptsas1068 => Some("mptsas1068,id=c0"),
        Bus::Megasas => Some("megasas,id=c0"),
        Bus::UsbStorage => Some("qemu-xhci,id=c0"),
    }
}

fn device(bus: Bus, index: usize) -> String {
    let place = match bus {
        Bus::VirtioBlk => "virtio-blk-pci".to_owned(),
        Bus::Nvme => format!("nvme,serial=consign{index}"),
        Bus::Ide => format!("ide-hd,bus=ide.{},unit={}", index / 2, index % 2),
        Bus::Ahci => format!("ide-hd,bus=c0.{index}"),
        Bus::UsbStorage => "usb-storage,bus=c0.0".to_owned(),
        Bus::Mptsas1068 => {
            // The driver attaches disks by their world-wide name only.
            format!(
                "scsi-hd,bus=c0.0,scsi-id={index},wwn={}",
                0x5000_c500_0000_0001_u64 + index as u64
            )
        }
        Bus::VirtioScsi | Bus::Pvscsi | Bus::Lsi53c895a | Bus::Megasas => {
            format!("scsi-hd,bus=c0.0,scsi-id={index}")
        }
    };
    let order = if index == 0 { ",bootindex=1" } else { "" };
    format!("{place},drive=d{index}{order}")
}

fn user_network(network: &Network) -> Vec<String> {
    let mut backend = String::from("user,id=n0");
    if let Some(subnet) = network.subnet {
        backend.push_str(&addresses(subnet));
    }
    for forward in &network.forwards {
        backend.push_str(&host_forward(*forward));
    }
    // Without its ROM the card does not try to boot from the network.
    [
        "-netdev",
        &backend,
        "-device",
        "virtio-net-pci,netdev=n0,romfile=",
    ]
    .map(str::to_owned)
    .into()
}

/// QEMU answers as gateway and as name server; the latter gets an address
/// that nobody else has.
fn addresses(subnet: Subnet) -> String {
    let Subnet {
        guest,
        gateway,
        prefix,
    } = subnet;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let network = u32::from(guest) & mask;
    let names = (3..6)
        .map(|host| Ipv4Addr::from(network | host))
        .find(|address| *address != guest && *address != gateway)
        .expect("three addresses, two of them taken");
    let network = Ipv4Addr::from(network);
    format!(",net={network}/{prefix},host={gateway},dns={names}")
}

fn host_forward(forward: Forward) -> String {
    let Forward {
        host,
        address,
        guest,
    } = forward;
    let address = address
        .map(|address| address.to_string())
        .unwrap_or_default();
    format!(",hostfwd=tcp:127.0.0.1:{host}-{address}:{guest}")
}

fn virtio_console(log: &Path) -> Result<Vec<String>, MachineError> {
    Ok(vec![
        "-device".into(),
        "virtio-serial-pci".into(),
        "-chardev".into(),
        format!("file,id=hvc0,path={}", value(log)?),
        "-device".into(),
        "virtconsole,chardev=hvc0".into(),
    ])
}

/// The arguments for a console that a program reads and writes: the serial
/// line on standard input, QEMU's monitor on standard output. Both must be
/// sockets, so each carries both directions.
#[must_use]
pub fn captured_console() -> Vec<String> {
    [
        "-chardev",
        "socket,id=con,fd=0",
        "-serial",
        "chardev:con",
        "-chardev",
        "socket,id=mon,fd=1",
        "-mon",
        "chardev=mon,mode=control",
    ]
    .map(str::to_owned)
    .into()
}

/// The arguments for a console on the terminal, which is kept in `log` too.
/// Ctrl-A X ends QEMU, Ctrl-C goes to the guest.
///
/// # Errors
///
/// [`MachineError::Path`].
pub fn terminal_console(log: Option<&Path>) -> Result<Vec<String>, MachineError> {
    let mut chardev = String::from("stdio,id=con,mux=on,signal=off");
    if let Some(log) = log {
        chardev.push_str(",logfile=");
        chardev.push_str(&value(log)?);
    }
    Ok([
        "-chardev",
        &chardev,
        "-serial",
        "chardev:con",
        "-mon",
        "chardev=con",
    ]
    .map(str::to_owned)
    .into())
}

/// A path as the value of an option: a comma is doubled.
pub(super) fn value(path: &Path) -> Result<String, MachineError> {
    Ok(text(path)?.replace(',', ",,"))
}

fn text(path: &Path) -> Result<&str, MachineError> {
    path.to_str().ok_or_else(|| MachineError::Path {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Format;

    fn spec_with_disk(bus: Bus) -> GuestSpec {
        GuestSpec {
            bus,
            chipset: if bus == Bus::Ide {
                Chipset::Pc
            } else {
                Chipset::Q35
            },
            disks: ["a,b.qcow2", "site.img"]
                .map(|path| Disk {
                    path: path.into(),
                    format: if path.ends_with("img") {
                        Format::Raw
                    } else {
                        Format::Qcow2
                    },
                    writes: Writes::Discarded,
                })
                .into(),
            ..GuestSpec::new(Firmware::Bios)
        }
    }

    fn line(spec: &GuestSpec) -> String {
        machine(spec, None, Accelerator::Tcg)
            .expect("arguments")
            .join(" ")
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        let line = line(&spec_with_disk(Bus::VirtioBlk));
        assert!(
            line.contains("if=none,id=d0,format=qcow2,snapshot=on,file=a,,b.qcow2"),
            "{line}"
        );
    }

    #[test]
    fn only_the_first_disk_is_booted_from() {
        for bus in Bus::ALL {
            let line = line(&spec_with_disk(bus));
            assert_eq!(line.matches("bootindex=1").count(), 1, "{line}");
            assert_eq!(line.matches("drive=d").count(), 2, "{line}");
            assert!(line.contains("drive=d0,bootindex=1"), "{line}");
        }
    }

    #[test]
    fn q35_has_no_parallel_ata() {
        let mut spec = spec_with_disk(Bus::Ide);
        spec.chipset = Chipset::Q35;
        let error = machine(&spec, None, Accelerator::Tcg).expect_err("no IDE");
        assert_eq!(error.to_string(), "the q35 board has no ide bus for disks");
    }

    #[test]
    fn secure_boot_protects_its_variables() {
        let ovmf = Ovmf {
            code: "code.fd".into(),
            variables: "vars.fd".into(),
        };
        let spec = GuestSpec::new(Firmware::UefiSecure);
        let line = machine(&spec, Some(&ovmf), Accelerator::Tcg)
            .expect("arguments")
            .join(" ");
        assert!(line.contains("-machine q35,smm=on"), "{line}");
        assert!(line.contains("property=secure,value=on"), "{line}");
        assert!(
            line.contains("unit=1,format=raw,snapshot=on,file=vars.fd"),
            "{line}"
        );
    }

    #[test]
    fn ports_are_bound_to_the_loopback_address() {
        let mut spec = GuestSpec::new(Firmware::Bios);
        spec.network = Some(Network {
            subnet: Some(Subnet {
                guest: [192, 0, 2, 3].into(),
                gateway: [192, 0, 2, 1].into(),
                prefix: 24,
            }),
            forwards: vec![
                Forward {
                    host: 4022,
                    address: None,
                    guest: 22,
                },
                Forward {
                    host: 4080,
                    address: Some([10, 0, 2, 50].into()),
                    guest: 80,
                },
            ],
        });
        let line = line(&spec);
        assert!(
            line.contains(
                "user,id=n0,net=192.0.2.0/24,host=192.0.2.1,dns=192.0.2.4,hostfwd=tcp:127.0.0.1:4022-:22,hostfwd=tcp:127.0.0.1:4080-10.0.2.50:80 "
            ),
            "{line}"
        );
    }
}
