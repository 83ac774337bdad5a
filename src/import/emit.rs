//! What somebody would type who imports without us: a script each, which
//! copies the disks first, so that the vendor's files stay as they are.
//!
//! Sources: virt-install(1) 4.1, qm(1) of Proxmox VE 8, the manual of QEMU.

use std::fmt::Write as _;
use std::path::Path;

use super::descriptor::BootKind;
use super::domain;
use super::error::ImportError;
use super::plan::{Make, Plan, PlannedDisk};
use super::qemu::{self, quote};
use super::wishes::{Bus, Graphics, Network};
use crate::descriptor::Firmware;
use crate::descriptor::libvirt::EMULATED_CPU;
use crate::machine::kvm::Accelerator;
use crate::units::{GIB, Guid};

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// libvirt's XML, with the paths that an import would have made.
    Libvirt,
    /// A script that runs QEMU.
    Qemu,
    /// A script that calls Proxmox's `qm`.
    Qm,
    /// A script that calls virt-install.
    VirtInstall,
}

/// Renders it.
///
/// # Errors
///
/// [`ImportError::NotForQemu`] for a Xen guest in another dialect than
/// libvirt's; no firmware for QEMU.
pub fn emit(
    plan: &Plan,
    dialect: Dialect,
    accelerator: Accelerator,
    connect: Option<&str>,
) -> Result<String, ImportError> {
    if dialect == Dialect::Libvirt {
        return Ok(domain::render(plan, accelerator));
    }
    if plan.kind == BootKind::Xen {
        return Err(ImportError::NotForQemu {
            index: plan.boot,
            kind: "Xen".into(),
        });
    }
    let mut out = String::from("#!/bin/sh\nset -eu\n");
    match dialect {
        Dialect::Libvirt => {}
        Dialect::Qemu => {
            copies(&mut out, plan);
            let ovmf = qemu::ovmf(plan)?;
            if let Some(ovmf) = &ovmf {
                let (from, to) = qemu::variables(ovmf, &plan.folder);
                line(&mut out, &["cp", &shown(&from), &shown(&to)]);
            }
            let addresses = Guid::from_hash(first_half(plan.digest.bytes()));
            let args = qemu::machine(plan, ovmf.as_ref(), accelerator, addresses)?;
            for disk in &plan.disks {
                if let Make::Overlay {
                    master,
                    checksum: Some(checksum),
                    ..
                } = &disk.make
                {
                    out.push_str(&qemu::check_line(&master.path, &checksum.to_string()));
                }
            }
            out.push_str("exec qemu-system-x86_64");
            for arg in args {
                out.push_str(if arg.starts_with('-') { " \\\n  " } else { " " });
                out.push_str(&quote(&arg));
            }
            out.push_str(" \\\n  -serial mon:stdio\n");
        }
        Dialect::VirtInstall => {
            copies(&mut out, plan);
            virt_install(&mut out, plan, accelerator, connect);
        }
        Dialect::Qm => qm(&mut out, plan),
    }
    Ok(out)
}

fn first_half(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    half
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn line(out: &mut String, words: &[&str]) {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    writeln!(out, "{}", words.join(" ")).expect("a string takes all");
}

/// Copies of the disks, as an import would make them.
fn copies(out: &mut String, plan: &Plan) {
    line(out, &["mkdir", "-p", &shown(&plan.folder)]);
    for disk in &plan.disks {
        copy(out, disk);
    }
    if let Some(kernel) = &plan.kernel {
        for (master, path) in std::iter::once(&kernel.kernel).chain(&kernel.initrd) {
            line(out, &["cp", &shown(&master.path), &shown(path)]);
        }
    }
}

fn copy(out: &mut String, disk: &PlannedDisk) {
    let path = shown(&disk.path);
    let size = disk.size.bytes().to_string();
    match &disk.make {
        Make::Kept => {}
        Make::Blank => line(out, &["truncate", "-s", &size, &path]),
        Make::Copy { .. } if let Some(recipe) = &disk.recipe => {
            let mut words: Vec<&str> = recipe.command.iter().map(String::as_str).collect();
            words.extend(["-o", &path]);
            line(out, &words);
        }
        Make::Copy { master, .. } => {
            let master = shown(&master.path);
            line(
                out,
                &["cp", "--reflink=auto", "--sparse=always", &master, &path],
            );
            if disk.grows {
                line(
                    out,
                    &["qemu-img", "resize", "-f", disk.format, &path, &size],
                );
            }
        }
        Make::Convert { master, format, .. } => {
            let (master, format) = (shown(&master.path), format.name());
            line(
                out,
                &[
                    "qemu-img", "convert", "-f", format, "-O", "raw", &master, &path,
                ],
            );
            if disk.grows {
                line(out, &["truncate", "-s", &size, &path]);
            }
        }
        Make::Overlay { master, format, .. } => {
            let (master, format) = (shown(&master.path), format.name());
            line(
                out,
                &[
                    "qemu-img", "create", "-f", "qcow2", "-F", format, "-b", &master, &path, &size,
                ],
            );
        }
    }
}

/// A call over several lines.
fn call(out: &mut String, program: &str, words: &[String]) {
    out.push_str(program);
    for word in words {
        out.push_str(if word.starts_with("--") {
            " \\\n  "
        } else {
            " "
        });
        out.push_str(&quote(word));
    }
    out.push('\n');
}

fn virt_install(out: &mut String, plan: &Plan, accelerator: Accelerator, connect: Option<&str>) {
    let mut words: Vec<String> = Vec::new();
    let mut say = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if let Some(uri) = connect {
        say("--connect", uri.to_owned());
    }
    say("--name", plan.name.clone());
    say("--memory", plan.memory.now.mib_ceil().to_string());
    say("--vcpus", plan.vcpus.to_string());
    say("--arch", plan.arch.clone());
    say("--machine", plan.board.name().to_owned());
    match accelerator {
        Accelerator::Kvm => say("--virt-type", "kvm".into()),
        Accelerator::Tcg => {
            say("--virt-type", "qemu".into());
            say("--cpu", EMULATED_CPU.into());
        }
    }
    // A name that its database lacks is an error, and so is no name at all.
    say("--osinfo", "detect=on,require=off".into());
    match (plan.firmware, &plan.kernel) {
        (_, Some(kernel)) => {
            let initrd = kernel.initrd.as_ref();
            let initrd = initrd.map(|(_, path)| format!(",initrd={}", qemu::comma(path)));
            let text = format!(
                "kernel={}{},kernel_args={}",
                qemu::comma(&kernel.kernel.1),
                initrd.unwrap_or_default(),
                kernel.cmdline.replace(',', ",,")
            );
            say("--boot", text);
        }
        (Firmware::Bios, None) => say("--boot", "hd".into()),
        (firmware, None) => {
            let state = if firmware == Firmware::UefiSecure {
                "yes"
            } else {
                "no"
            };
            say(
                "--boot",
                format!(
                    "firmware=efi,firmware.feature0.enabled={state},\
                     firmware.feature0.name=secure-boot,firmware.feature1.enabled={state},\
                     firmware.feature1.name=enrolled-keys"
                ),
            );
        }
    }
    for disk in &plan.disks {
        let device = if disk.is_cd { ",device=cdrom" } else { "" };
        let serial = domain::serial(disk).map(|serial| format!(",serial={serial}"));
        let text = format!(
            "path={},format={},bus={}{device}{}",
            qemu::comma(&disk.path),
            disk.format,
            disk.bus.name(),
            serial.unwrap_or_default(),
        );
        say("--disk", text);
    }
    if plan.nics.is_empty() {
        say("--network", "none".into());
    }
    for nic in &plan.nics {
        let place = match &nic.network {
            Network::Named(name) => format!("network={name}"),
            Network::Bridge(name) => format!("bridge={name}"),
            Network::User => "user".into(),
        };
        let mac = nic.mac.as_ref().map(|mac| format!(",mac={mac}"));
        say(
            "--network",
            format!("{place},model={}{}", nic.model, mac.unwrap_or_default()),
        );
    }
    let graphics = match plan.graphics {
        Graphics::None => "none",
        Graphics::Vnc { .. } => "vnc",
        Graphics::Spice => "spice",
        Graphics::Sdl => "sdl",
    };
    say("--graphics", graphics.into());
    let log = plan.folder.join(domain::CONSOLE_LOG);
    say("--serial", format!("pty,log.file={}", qemu::comma(&log)));
    words.extend(["--import", "--noautoconsole"].map(str::to_owned));
    call(out, "virt-install", &words);
}

fn qm(out: &mut String, plan: &Plan) {
    out.push_str(
        "VMID=${VMID:-$(pvesh get /cluster/nextid)}\nSTORE=${STORE:-local-lvm}\n\
         BRIDGE=${BRIDGE:-vmbr0}\n",
    );
    let name: String = plan
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let mut words = vec!["create".to_owned(), "\"$VMID\"".to_owned()];
    let mut say = |name: &str, value: String| words.extend([name.to_owned(), value]);
    say("--name", quote(&name));
    say("--memory", plan.memory.now.mib_ceil().to_string());
    say("--cores", plan.vcpus.to_string());
    say("--ostype", "l26".into());
    if plan.board.name() == "q35" {
        say("--machine", "q35".into());
    }
    if plan.firmware != Firmware::Bios {
        let keys = u8::from(plan.firmware == Firmware::UefiSecure);
        say("--bios", "ovmf".into());
        say(
            "--efidisk0",
            format!("\"$STORE:0,efitype=4m,pre-enrolled-keys={keys}\""),
        );
    }
    say("--serial0", "socket".into());
    say("--scsihw", "virtio-scsi-pci".into());
    let mut counts = std::collections::BTreeMap::new();
    let mut first = None;
    let mut made = String::new();
    for disk in &plan.disks {
        let bus = match (disk.bus, disk.is_cd) {
            (Bus::Ide, _) => "ide",
            (Bus::Sata, _) | (_, true) => "sata",
            (Bus::Virtio | Bus::Xen, _) => "virtio",
            (Bus::Scsi, _) => "scsi",
        };
        let count = counts.entry(bus).or_insert(0_u32);
        let device = format!("{bus}{count}");
        *count += 1;
        let value = match disk.make.master() {
            Some(_) if let Some(recipe) = &disk.recipe => {
                made.push_str("MADE=$(mktemp -d)\ntrap 'rm -rf \"$MADE\"' EXIT\n");
                let words: Vec<String> = recipe.command.iter().map(|word| quote(word)).collect();
                writeln!(made, "{} -o \"$MADE/{}.raw\"", words.join(" "), disk.id)
                    .expect("a string takes all");
                format!("\"$STORE:0,import-from=$MADE/{}.raw\"", disk.id)
            }
            Some((master, _)) => format!(
                "\"$STORE:0\"{}",
                quote(&format!(",import-from={}", shown(&master.path)))
            ),
            None => format!("\"$STORE:{}\"", disk.size.bytes().div_ceil(GIB)),
        };
        first.get_or_insert_with(|| device.clone());
        say(&format!("--{device}"), value);
    }
    if let Some(first) = first {
        say("--boot", format!("order={first}"));
    }
    for (index, nic) in plan.nics.iter().enumerate() {
        say(
            &format!("--net{index}"),
            format!("\"{},bridge=$BRIDGE\"", nic.model),
        );
    }
    out.push_str(&made);
    // These words are quoted already: some hold the script's variables.
    out.push_str("qm");
    for word in words {
        out.push_str(if word.starts_with("--") {
            " \\\n  "
        } else {
            " "
        });
        out.push_str(&word);
    }
    out.push('\n');
}
