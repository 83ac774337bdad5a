//! A short text on how to start the machine, for people with no manual.
//!
//! Every file is named relative to the folder that the text is in.

use std::fmt::Write as _;

use super::{
    CONFIG_DISK_FILE, DescriptorError, DiskFacts, Firmware, Machine, VIRT_IMAGE_FILE, check,
    preferred,
};

/// Renders the text.
///
/// # Errors
///
/// Any [`DescriptorError`] but `Write`.
pub fn render(machine: &Machine, disks: &[DiskFacts]) -> Result<String, DescriptorError> {
    check(machine)?;
    let system = preferred(machine, disks)?;
    let sections = [
        head(machine),
        files(disks),
        configure(machine),
        with_consign(),
        with_qemu(machine, system),
        with_libvirt(machine, system),
    ];
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

fn files(disks: &[DiskFacts]) -> String {
    let mut rows: Vec<(String, String)> = disks
        .iter()
        .map(|disk| {
            let what = format!(
                "the disk, {}, {} in the guest",
                disk.format.name(),
                disk.size
            );
            (disk.file.clone(), what)
        })
        .collect();
    rows.push((
        VIRT_IMAGE_FILE.into(),
        "what the machine is made of, for importers".into(),
    ));
    rows.push((
        "SHA256SUMS".into(),
        "check with: sha256sum --check SHA256SUMS".into(),
    ));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::from("FILES\n\n");
    for (name, what) in rows {
        writeln!(text, "    {name:width$}  {what}").expect("a string takes all");
    }
    text.push_str("\nThe commands below write to the disk. Keep a copy of it.\n");
    text
}

fn configure(machine: &Machine) -> String {
    format!(
        "CONFIGURE\n\n\
         The machine reads its configuration from a small disk labelled {label}.\n\
         Without one it starts, waits, and says so on its console.\n\n    \
         consign config init > site.toml\n    \
         consign config check site.toml\n    \
         consign config disk site.toml -o {CONFIG_DISK_FILE}\n",
        label = machine.config.label,
    )
}

fn with_consign() -> String {
    "TRY IT\n\n    \
     consign boot --config site.toml\n\n\
     The disk stays as it is; changes are gone when the machine is off.\n"
        .to_owned()
}

fn with_qemu(machine: &Machine, system: &DiskFacts) -> String {
    let common = format!(
        "-accel kvm -accel tcg -cpu max -smp {cpus} -m {memory} \\\n      \
         -drive if=virtio,format={format},file={file} \\\n      \
         -drive if=virtio,format=raw,file={CONFIG_DISK_FILE} \\\n      \
         -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:80 \\\n      \
         -display none -serial mon:stdio",
        cpus = machine.vcpus,
        memory = machine.memory.mib_ceil(),
        format = system.format.name(),
        file = system.file,
    );
    let mut text = String::from("QEMU\n");
    for firmware in &machine.firmware {
        match firmware {
            Firmware::Bios => {
                write!(
                    text,
                    "\nWith BIOS:\n\n    qemu-system-x86_64 -machine q35 \\\n      {common}\n"
                )
                .expect("a string takes all");
            }
            Firmware::Uefi => {
                write!(
                    text,
                    "\nWith UEFI (Debian's package `ovmf`):\n\n    \
                     cp /usr/share/OVMF/OVMF_VARS_4M.fd vars.fd\n    \
                     qemu-system-x86_64 -machine q35 \\\n      \
                     -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \\\n      \
                     -drive if=pflash,format=raw,file=vars.fd \\\n      {common}\n"
                )
                .expect("a string takes all");
            }
            Firmware::UefiSecure => {
                write!(
                    text,
                    "\nWith UEFI and Secure Boot, which verifies the kernel only:\n\n    \
                     cp /usr/share/OVMF/OVMF_VARS_4M.ms.fd vars.fd\n    \
                     qemu-system-x86_64 -machine q35,smm=on \\\n      \
                     -global driver=cfi.pflash01,property=secure,value=on \\\n      \
                     -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd \\\n      \
                     -drive if=pflash,format=raw,file=vars.fd \\\n      {common}\n"
                )
                .expect("a string takes all");
            }
        }
    }
    text
}

fn with_libvirt(machine: &Machine, system: &DiskFacts) -> String {
    let boot = match machine.firmware.first() {
        Some(Firmware::Uefi | Firmware::UefiSecure) => " --boot uefi",
        _ => "",
    };
    let network = if machine.nics == 0 {
        " --network none".to_owned()
    } else {
        " --network network=default,model=virtio".repeat(machine.nics as usize)
    };
    format!(
        "LIBVIRT\n\n    \
         virt-install --connect qemu:///system --name {name} \\\n      \
         --memory {memory} --vcpus {cpus} --osinfo {os} --import{boot} \\\n      \
         --disk path={file},format={format},bus=virtio \\\n      \
         --disk path={CONFIG_DISK_FILE},format=raw,bus=virtio \\\n     \
         {network} --graphics none --noautoconsole\n    \
         virsh --connect qemu:///system console {name}\n",
        name = machine.name,
        memory = machine.memory.mib_ceil(),
        cpus = machine.vcpus,
        os = machine.os_id,
        file = system.file,
        format = system.format.name(),
    )
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
}
