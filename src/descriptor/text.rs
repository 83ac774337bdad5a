//! `IMPORT.txt`: a few lines for each kind of host, for people with no manual.
//!
//! Every file is named relative to the folder that the text is in. What is
//! said to be run by our tests is run by them, as it stands here; the rest
//! says that it is from the documentation.

use std::fmt::Write as _;

use super::{
    CONFIG_DISK_FILE, DescriptorError, DiskFacts, Firmware, Machine, VIRT_IMAGE_FILE, check,
    preferred,
};
use crate::image::ImageFormat;
use crate::units::{ByteSize, MIB};

/// The config disk as a CD, for hosts that attach files as CDs only.
const CONFIG_CD_FILE: &str = "site.iso";
/// What the parts of the text begin with, by where they come from.
const TESTED: &str = "RUN BY OUR TESTS";
const FROM_MANUALS: &str = "FROM THE DOCUMENTATION, NOT RUN BY US";

/// Renders the text. `disks` are all image files.
///
/// # Errors
///
/// Any [`DescriptorError`] but `Write`.
pub fn render(machine: &Machine, disks: &[DiskFacts]) -> Result<String, DescriptorError> {
    check(machine)?;
    let file = |wanted: ImageFormat| {
        let mut of_it = disks.iter().filter(|disk| disk.format == wanted);
        of_it.next().map(|disk| disk.file.as_str())
    };
    let system = preferred(machine, disks).ok();
    let ova = file(ImageFormat::Ova);
    let tested = vec![
        system.map(|_| with_consign()),
        system.map(|system| with_virt_install(machine, system)),
        system.map(|system| with_qemu(machine, system)),
        ova.map(with_virt_v2v),
    ];
    let from_manuals = vec![
        system.map(|system| with_qm(machine, system)),
        ova.map(|ova| with_vmware(machine, ova)),
        ova.map(|ova| with_virtualbox(machine, ova)),
        file(ImageFormat::Vhdx).map(|vhdx| with_hyper_v(machine, vhdx)),
    ];
    let mut sections = vec![head(machine), files(machine, disks), configure(machine)];
    for (title, parts) in [(TESTED, tested), (FROM_MANUALS, from_manuals)] {
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            sections.push(format!("{title}\n\n{}", parts.join("\n")));
        }
    }
    Ok(sections.join("\n"))
}

fn head(machine: &Machine) -> String {
    let mut text = format!("{} {}\n{}\n", machine.name, machine.version, machine.label);
    if !machine.description.is_empty() {
        text.push('\n');
        text.push_str(machine.description.trim_end());
        text.push('\n');
    }
    text
}

fn files(machine: &Machine, disks: &[DiskFacts]) -> String {
    let row = |name: &str, what: &str| (name.to_owned(), what.to_owned());
    let mut rows: Vec<(String, String)> = disks
        .iter()
        .map(|disk| match disk.format {
            ImageFormat::Ova => row(&disk.file, "machine and disk in one file"),
            format => {
                let what = format!("the disk, {format}, {} in the guest", disk.size);
                row(&disk.file, &what)
            }
        })
        .collect();
    if preferred(machine, disks).is_ok() {
        rows.push(row(
            VIRT_IMAGE_FILE,
            "what the machine is made of, for importers",
        ));
        rows.push(row(
            &machine.libvirt_file(),
            "the same for virsh; replace /FOLDER in it",
        ));
    }
    rows.push(row(
        "SHA256SUMS",
        "check with: sha256sum --check SHA256SUMS",
    ));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::from("FILES\n\n");
    for (name, what) in rows {
        writeln!(text, "    {name:width$}  {what}").expect("a string takes all");
    }
    text
}

fn configure(machine: &Machine) -> String {
    format!(
        "CONFIGURE\n\n\
         The machine reads its configuration from a small disk or CD labelled {label}.\n\
         Without one it starts, waits, and says so on its console.\n\n    \
         consign config init > site.toml\n    \
         consign config check site.toml\n    \
         consign config disk site.toml -o {CONFIG_DISK_FILE}\n    \
         consign config disk site.toml --format iso -o {CONFIG_CD_FILE}\n",
        label = machine.config.label,
    )
}

fn with_consign() -> String {
    format!(
        "With consign: checks every file, copies the disk, defines the machine and starts\n\
         it. The files here stay as they are.\n\n    \
         virt-image {VIRT_IMAGE_FILE} --config site.toml\n"
    )
}

/// The disks that the customer makes, sparse.
fn user_disks(machine: &Machine) -> String {
    let mut text = String::new();
    for disk in &machine.user_disks {
        let (size, file) = (disk.size.mib_ceil(), machine.user_disk_file(disk));
        writeln!(text, "    truncate -s {size}M {file}").expect("a string takes all");
    }
    text
}

/// Without the system's name: Debian 12's own list does not have Debian 12,
/// and an unknown name is refused.
fn with_virt_install(machine: &Machine, system: &DiskFacts) -> String {
    let boot = match machine.first_firmware() {
        Firmware::Uefi | Firmware::UefiSecure => " --boot uefi",
        Firmware::Bios => "",
    };
    let network = match machine.nics {
        0 => "--network none".to_owned(),
        nics => vec!["--network network=default,model=virtio"; nics as usize].join(" \\\n      "),
    };
    let mut disks = format!(
        "--disk path={},format={},bus=virtio",
        system.file,
        system.format.name()
    );
    let users = machine
        .user_disks
        .iter()
        .map(|disk| machine.user_disk_file(disk));
    for file in users.chain([CONFIG_DISK_FILE.to_owned()]) {
        write!(disks, " \\\n      --disk path={file},format=raw,bus=virtio")
            .expect("a string takes all");
    }
    format!(
        "With virt-install, which uses the disk in place: keep a copy of it.\n\n\
         {user_disks}    \
         virt-install --connect qemu:///system --name {name} \\\n      \
         --memory {memory} --vcpus {cpus} --osinfo detect=on,require=off --import{boot} \\\n      \
         {disks} \\\n      \
         {network} \\\n      \
         --graphics none --noautoconsole\n    \
         virsh --connect qemu:///system console {name}\n",
        user_disks = user_disks(machine),
        name = machine.name,
        memory = machine.memory.mib_ceil(),
        cpus = machine.vcpus,
    )
}

fn with_qemu(machine: &Machine, system: &DiskFacts) -> String {
    let mut drives = format!(
        "-drive if=virtio,format={},file={}",
        system.format.name(),
        system.file
    );
    let users = machine
        .user_disks
        .iter()
        .map(|disk| machine.user_disk_file(disk));
    for file in users.chain([CONFIG_DISK_FILE.to_owned()]) {
        write!(drives, " \\\n      -drive if=virtio,format=raw,file={file}")
            .expect("a string takes all");
    }
    let common = format!(
        "-accel kvm -accel tcg -cpu max -smp {cpus} -m {memory} \\\n      \
         {drives} \\\n      \
         -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:80 \\\n      \
         -display none -serial mon:stdio",
        cpus = machine.vcpus,
        memory = machine.memory.mib_ceil(),
    );
    let mut text = String::from("With QEMU, which uses the disk in place too.\n");
    let made = user_disks(machine);
    if !made.is_empty() {
        write!(text, "\n{made}").expect("a string takes all");
    }
    for firmware in &machine.firmware {
        let part = match firmware {
            Firmware::Bios => {
                format!("\nBIOS:\n\n    qemu-system-x86_64 -machine q35 \\\n      {common}\n")
            }
            Firmware::Uefi => format!(
                "\nUEFI (Debian's package `ovmf`):\n\n    \
                 cp /usr/share/OVMF/OVMF_VARS_4M.fd vars.fd\n    \
                 qemu-system-x86_64 -machine q35 \\\n      \
                 -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \\\n      \
                 -drive if=pflash,format=raw,file=vars.fd \\\n      {common}\n"
            ),
            Firmware::UefiSecure => format!(
                "\nUEFI and Secure Boot, which verifies the kernel only:\n\n    \
                 cp /usr/share/OVMF/OVMF_VARS_4M.ms.fd vars.fd\n    \
                 qemu-system-x86_64 -machine q35,smm=on \\\n      \
                 -global driver=cfi.pflash01,property=secure,value=on \\\n      \
                 -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd \\\n      \
                 -drive if=pflash,format=raw,file=vars.fd \\\n      {common}\n"
            ),
        };
        text.push_str(&part);
    }
    text
}

fn with_virt_v2v(ova: &str) -> String {
    format!(
        "With virt-v2v: checks the manifest and says what it read. A conversion (-o) ends with\n\
         \"no bootloader detected\", since loader and kernel are in the EFI system partition;\n\
         the disk needs none.\n\n    \
         virt-v2v -i ova {ova} --print-source\n"
    )
}

fn with_qm(machine: &Machine, system: &DiskFacts) -> String {
    let firmware = match machine.first_firmware() {
        Firmware::Bios => "",
        Firmware::Uefi => {
            " \\\n      --bios ovmf --efidisk0 local-lvm:0,efitype=4m,pre-enrolled-keys=0"
        }
        Firmware::UefiSecure => {
            " \\\n      --bios ovmf --efidisk0 local-lvm:0,efitype=4m,pre-enrolled-keys=1"
        }
    };
    let mut more = String::new();
    for (number, disk) in (1..).zip(&machine.user_disks) {
        let gigabytes = disk.size.bytes().div_ceil(1024 * MIB);
        write!(more, " \\\n      --scsi{number} local-lvm:{gigabytes}")
            .expect("a string takes all");
    }
    for number in 0..machine.nics {
        write!(more, " \\\n      --net{number} virtio,bridge=vmbr0").expect("a string takes all");
    }
    format!(
        "Proxmox VE 8, on its host; {CONFIG_CD_FILE} is in the storage `local`:\n\n    \
         qm create 9000 --name {name} --ostype l26 --machine q35 \\\n      \
         --memory {memory} --cores {cpus} --serial0 socket{firmware} \\\n      \
         --scsihw virtio-scsi-single \\\n      \
         --scsi0 \"local-lvm:0,import-from=$PWD/{file}\"{more} \\\n      \
         --ide2 local:iso/{CONFIG_CD_FILE},media=cdrom --boot order=scsi0\n    \
         qm start 9000\n",
        name = machine.name,
        memory = machine.memory.mib_ceil(),
        cpus = machine.vcpus,
        file = system.file,
    )
}

fn with_vmware(machine: &Machine, ova: &str) -> String {
    let name = &machine.name;
    let configured = if machine.properties.is_empty() {
        format!("Attach {CONFIG_CD_FILE} as a CD")
    } else {
        format!("Fill in the properties, or attach {CONFIG_CD_FILE} as a CD")
    };
    format!(
        "VMware, with govc or with ovftool. {configured}:\n\n    \
         govc import.spec {ova} > {name}.json\n    \
         govc import.ova -name {name} -options {name}.json {ova}\n    \
         govc vm.power -on {name}\n\n    \
         ovftool --name={name} --datastore=DATASTORE --net:\"VM Network\"=NETWORK \\\n      \
         --X:injectOvfEnv {ova} vi://USER@HOST/\n"
    )
}

fn with_virtualbox(machine: &Machine, ova: &str) -> String {
    let firmware = match machine.first_firmware() {
        Firmware::Bios => "bios",
        Firmware::Uefi | Firmware::UefiSecure => "efi",
    };
    format!(
        "VirtualBox, which does not take the firmware from the file:\n\n    \
         VBoxManage import {ova} --vsys 0 --vmname {name}\n    \
         VBoxManage modifyvm {name} --firmware {firmware}\n    \
         VBoxManage storageattach {name} --storagectl \"IDE Controller\" --port 0 --device 0 \\\n      \
         --type dvddrive --medium {CONFIG_CD_FILE}\n    \
         VBoxManage startvm {name} --type headless\n",
        name = machine.name,
    )
}

fn with_hyper_v(machine: &Machine, vhdx: &str) -> String {
    let name = &machine.name;
    let mut text = format!(
        "Hyper-V, in PowerShell as an administrator:\n\n    \
         New-VM -Name {name} -Generation {generation} -MemoryStartupBytes {memory}MB `\n      \
         -VHDPath \"$PWD\\{vhdx}\" -SwitchName \"Default Switch\"\n    \
         Set-VMProcessor -VMName {name} -Count {cpus}\n",
        generation = if machine.first_firmware() == Firmware::Bios {
            1
        } else {
            2
        },
        memory = machine.memory.mib_ceil(),
        cpus = machine.vcpus,
    );
    let mut line = |line: String| writeln!(text, "    {line}").expect("a string takes all");
    match machine.first_firmware() {
        Firmware::Bios => {}
        Firmware::Uefi => line(format!(
            "Set-VMFirmware -VMName {name} -EnableSecureBoot Off"
        )),
        Firmware::UefiSecure => line(format!(
            "Set-VMFirmware -VMName {name} -EnableSecureBoot On `\n      \
             -SecureBootTemplate MicrosoftUEFICertificateAuthority"
        )),
    }
    for disk in &machine.user_disks {
        let file = format!("{name}-{}.vhdx", disk.id);
        let size = ByteSize::from_mib(disk.size.mib_ceil()).bytes() / MIB;
        line(format!(
            "New-VHD -Path \"$PWD\\{file}\" -SizeBytes {size}MB -Dynamic"
        ));
        line(format!(
            "Add-VMHardDiskDrive -VMName {name} -Path \"$PWD\\{file}\""
        ));
    }
    line(format!(
        "Add-VMDvdDrive -VMName {name} -Path \"$PWD\\{CONFIG_CD_FILE}\""
    ));
    line(format!("Start-VM -Name {name}"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::sample;

    #[test]
    fn every_supported_firmware_has_its_command() {
        let text = render(&sample::machine(), &sample::disks()).expect("renders");
        assert_eq!(text.matches("qemu-system-x86_64").count(), 3);
        let machine = Machine {
            firmware: vec![Firmware::Bios],
            ..sample::machine()
        };
        let text = render(&machine, &sample::disks()).expect("renders");
        assert_eq!(text.matches("qemu-system-x86_64").count(), 1);
        assert!(!text.contains("--boot uefi"));
    }

    #[test]
    fn a_machine_without_network_gets_none() {
        let machine = Machine {
            nics: 0,
            ..sample::machine()
        };
        let text = render(&machine, &sample::disks()).expect("renders");
        assert!(text.contains("--network none"), "{text}");
    }

    #[test]
    fn a_host_is_named_only_when_it_has_an_image() {
        let of = |format: ImageFormat| DiskFacts {
            file: format!("wiki.{format}"),
            format,
            ..sample::disks()[0].clone()
        };
        let hosts = ["virt-image", "virt-v2v", "qm create", "govc", "New-VM"];
        for (format, named) in [
            (ImageFormat::Qcow2, [true, false, true, false, false]),
            (ImageFormat::Ova, [false, true, false, true, false]),
            (ImageFormat::Vhdx, [false, false, false, false, true]),
            (ImageFormat::RawZst, [false; 5]),
        ] {
            let text = render(&sample::machine(), &[of(format)]).expect("renders");
            let found = hosts.map(|host| text.contains(host));
            assert_eq!(found, named, "{format}:\n{text}");
        }
    }
}
