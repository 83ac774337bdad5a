//! The guest in QEMU alone, where there is no libvirt: it goes on without
//! us, its console is kept in its folder, and QEMU's control line is there.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::descriptor::BootKind;
use super::domain::{CONSOLE_LOG, serial};
use super::error::ImportError;
use super::plan::{Nic, Plan, PlannedDisk};
use super::store::Record;
use super::wishes::{Board, Bus, Graphics, Network};
use crate::descriptor::Firmware;
use crate::descriptor::libvirt::EMULATED_CPU;
use crate::exec::{Call, ExecError};
use crate::machine::firmware::{self, Ovmf};
use crate::machine::kvm::Accelerator;
use crate::machine::qmp::Qmp;
use crate::units::Guid;

/// The control line, in the guest's folder.
const CONTROL: &str = "qmp.sock";
/// The guest's copy of the firmware's variables.
pub(super) const VARIABLES: &str = "nvram.fd";
/// Longest name of a socket, less the byte that ends it (unix(7)).
const MAX_SOCKET: usize = 107;

/// The firmware's files for the plan; `None` for BIOS.
pub(super) fn ovmf(plan: &Plan) -> Result<Option<Ovmf>, ImportError> {
    use crate::machine::Firmware as Kind;
    let kind = match plan.firmware {
        Firmware::Bios => Kind::Bios,
        Firmware::Uefi => Kind::Uefi,
        Firmware::UefiSecure => Kind::UefiSecure,
    };
    Ok(firmware::find(kind, Path::new("/"))?)
}

/// The arguments for the machine; `addresses` seeds those of network cards.
/// A guest that QEMU alone cannot be is refused.
pub(super) fn machine(
    plan: &Plan,
    ovmf: Option<&Ovmf>,
    accelerator: Accelerator,
    addresses: Guid,
) -> Result<Vec<String>, ImportError> {
    if plan.kind == BootKind::Xen {
        return Err(ImportError::NotForQemu {
            index: plan.boot,
            kind: "Xen".into(),
        });
    }
    let mut args = board(plan, accelerator);
    if let Some(ovmf) = ovmf {
        args.extend(firmware_args(plan, ovmf));
    }
    args.extend(controllers(plan));
    let mut counts = [0; 2];
    for (index, disk) in plan.disks.iter().enumerate() {
        let value = format!(
            "if=none,id=d{index},format={},file={}{}",
            disk.format,
            comma(&disk.path),
            if disk.is_cd { ",readonly=on" } else { "" },
        );
        args.extend(["-drive".into(), value]);
        args.extend(["-device".into(), device(plan, disk, index, &mut counts)]);
    }
    for (index, nic) in plan.nics.iter().enumerate() {
        args.extend(card(nic, index, addresses));
    }
    if let Some(kernel) = &plan.kernel {
        args.extend(["-kernel".into(), kernel.kernel.1.display().to_string()]);
        if let Some((_, initrd)) = &kernel.initrd {
            args.extend(["-initrd".into(), initrd.display().to_string()]);
        }
        args.extend(["-append".into(), kernel.cmdline.clone()]);
    }
    args.extend(screen(&plan.graphics, &plan.folder));
    Ok(args)
}

fn board(plan: &Plan, accelerator: Accelerator) -> Vec<String> {
    let secure = plan.firmware == Firmware::UefiSecure;
    let smm = if secure { ",smm=on" } else { "" };
    let has = |name: &str| plan.features.iter().any(|feature| feature == name);
    let acpi = if has("acpi") { "" } else { ",acpi=off" };
    let accel = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    };
    let cpu = match (plan.cpu.as_deref(), accelerator) {
        (None | Some("host-passthrough" | "host-model"), Accelerator::Kvm) => "host",
        (Some("host-passthrough" | "host-model" | "maximum"), _) => "max",
        (Some(model), _) => model,
        (None, Accelerator::Tcg) => EMULATED_CPU,
    };
    let mut args = vec![
        "-name".into(),
        format!("guest={}", comma_text(&plan.name)),
        "-nodefaults".into(),
        "-no-user-config".into(),
        "-machine".into(),
        format!("{}{smm}{acpi}", plan.board.name()),
        "-accel".into(),
        accel.into(),
        "-cpu".into(),
        cpu.into(),
        "-smp".into(),
        plan.vcpus.to_string(),
        "-m".into(),
        plan.memory.now.mib_ceil().to_string(),
    ];
    if let Some(uuid) = &plan.uuid {
        args.extend(["-uuid".into(), uuid.clone()]);
    }
    if plan.is_modern || plan.board == Board::Q35 {
        args.extend(["-device".into(), "virtio-rng-pci".into()]);
    }
    args
}

fn firmware_args(plan: &Plan, ovmf: &Ovmf) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    if plan.firmware == Firmware::UefiSecure {
        let property = "driver=cfi.pflash01,property=secure,value=on";
        args.extend(["-global".into(), property.into()]);
    }
    let variables = plan.folder.join(VARIABLES);
    args.extend([
        "-drive".into(),
        format!(
            "if=pflash,unit=0,format=raw,readonly=on,file={}",
            comma(&ovmf.code)
        ),
        "-drive".into(),
        format!("if=pflash,unit=1,format=raw,file={}", comma(&variables)),
    ]);
    args
}

fn controllers(plan: &Plan) -> Vec<String> {
    let has = |bus| plan.disks.iter().any(|disk| disk.bus == bus);
    let mut args = Vec::new();
    if has(Bus::Scsi) {
        args.extend(["-device", "virtio-scsi-pci,id=scsi"]);
    }
    if has(Bus::Sata) && plan.board == Board::Pc {
        args.extend(["-device", "ich9-ahci,id=ahci"]);
    }
    args.into_iter().map(str::to_owned).collect()
}

fn device(plan: &Plan, disk: &PlannedDisk, index: usize, counts: &mut [usize; 2]) -> String {
    let ata = if disk.is_cd { "ide-cd" } else { "ide-hd" };
    let mut next = |which: usize| {
        let count = counts.get_mut(which).expect("two counts");
        *count += 1;
        *count - 1
    };
    let text = match disk.bus {
        Bus::Virtio | Bus::Xen => "virtio-blk-pci".to_owned(),
        Bus::Scsi if disk.is_cd => "scsi-cd,bus=scsi.0".into(),
        Bus::Scsi => "scsi-hd,bus=scsi.0".into(),
        Bus::Sata => {
            let port = next(0);
            // Q35 has an AHCI controller of its own, whose ports are called ide.
            let name = if plan.board == Board::Q35 {
                "ide"
            } else {
                "ahci"
            };
            format!("{ata},bus={name}.{port}")
        }
        Bus::Ide => {
            let place = next(1);
            format!("{ata},bus=ide.{},unit={}", place / 2, place % 2)
        }
    };
    let serial = serial(disk).map(|serial| format!(",serial={serial}"));
    let order = (disk.is_cd == plan.from_cdrom).then(|| format!(",bootindex={}", index + 1));
    let (serial, order) = (serial.unwrap_or_default(), order.unwrap_or_default());
    format!("{text},drive=d{index}{serial}{order}")
}

fn card(nic: &Nic, index: usize, addresses: Guid) -> Vec<String> {
    let backend = match &nic.network {
        Network::Bridge(name) => format!("bridge,id=n{index},br={name}"),
        // A network of libvirt cannot be had without it.
        Network::Named(_) | Network::User => format!("user,id=n{index}"),
    };
    let model = match nic.model.as_str() {
        "virtio" => "virtio-net-pci",
        other => other,
    };
    let mac = nic.mac.clone().unwrap_or_else(|| {
        let bytes = addresses.bytes();
        let [a, b, c, ..] = bytes;
        let last = c.wrapping_add(u8::try_from(index).unwrap_or_default());
        format!("52:54:00:{a:02x}:{b:02x}:{last:02x}")
    });
    vec![
        "-netdev".into(),
        backend,
        "-device".into(),
        format!("{model},netdev=n{index},mac={mac}"),
    ]
}

fn screen(graphics: &Graphics, folder: &Path) -> Vec<String> {
    let words: Vec<String> = match graphics {
        Graphics::None => vec!["-display".into(), "none".into()],
        Graphics::Sdl => vec!["-vga".into(), "std".into(), "-display".into(), "sdl".into()],
        Graphics::Vnc { port, listen, .. } => {
            let listen = listen.as_deref().unwrap_or("127.0.0.1");
            let number = port.map_or(0, |port| port.saturating_sub(5900));
            let free = if port.is_none() { ",to=99" } else { "" };
            let display = format!("vnc={listen}:{number}{free}");
            vec!["-vga".into(), "std".into(), "-display".into(), display]
        }
        Graphics::Spice => {
            let socket = comma(&folder.join("spice.sock"));
            let spice = format!("unix=on,addr={socket},disable-ticketing=on");
            vec![
                "-vga".into(),
                "std".into(),
                "-display".into(),
                "none".into(),
                "-spice".into(),
                spice,
            ]
        }
    };
    words
}

/// What makes it a guest that goes on by itself, besides its machine.
pub(super) fn background(folder: &Path) -> Result<Vec<String>, ImportError> {
    let path = |name: &str| folder.join(name);
    let control = path(CONTROL);
    let console = path("console.sock");
    if console.as_os_str().len() > MAX_SOCKET {
        return Err(ImportError::Folder {
            path: folder.to_owned(),
            source: std::io::Error::new(
                std::io::ErrorKind::InvalidFilename,
                "its name is too long for the sockets in it",
            ),
        });
    }
    Ok(vec![
        "-chardev".into(),
        format!(
            "socket,id=con,path={},server=on,wait=off,logfile={},logappend=off",
            comma(&console),
            comma(&path(CONSOLE_LOG)),
        ),
        "-serial".into(),
        "chardev:con".into(),
        "-qmp".into(),
        format!("unix:{},server=on,wait=off", comma(&control)),
        "-pidfile".into(),
        path("qemu.pid").display().to_string(),
        "-daemonize".into(),
    ])
}

/// Starts it.
pub(super) fn start(qemu: &Call, args: &[String]) -> Result<(), ImportError> {
    match qemu.clone().args(args.iter().cloned()).run(b"") {
        Ok(_) => Ok(()),
        Err(ExecError::Failed { stderr, .. }) if stderr.contains("could not load PC BIOS") => {
            Err(ImportError::NoFirmware {
                wanted: "BIOS".into(),
                found: "UEFI".into(),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// The control line of a running guest; `None` when it does not run.
pub(super) fn control(folder: &Path) -> Option<UnixStream> {
    UnixStream::connect(folder.join(CONTROL)).ok()
}

/// Ends it as if its power were cut.
pub(super) fn cut_power(folder: &Path) -> Result<(), ImportError> {
    if let Some(socket) = control(folder) {
        // It may be gone before it has answered.
        let told = Qmp::open(socket).and_then(|mut line| line.execute("quit", &json!({})));
        // The line is closed when QEMU is gone, and with it its hold on the disks.
        for _ in 0..1500 {
            if control(folder).is_none() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        told?;
        return Err(ImportError::Running {
            name: super::store::name_of(folder),
        });
    }
    Ok(())
}

/// A script that starts it again, unless a file that an overlay lies on is
/// another one by then.
pub(super) fn script(program: &Path, record: &Record) -> String {
    let mut text = String::from("#!/bin/sh\n");
    for disk in &record.disks {
        if let Some((master, checksum)) = disk.lies_on() {
            text.push_str(&check_line(master, checksum));
        }
    }
    text.push_str(&call_line(program, &record.qemu));
    text
}

/// A line that ends a script with exit code 3 unless the file at `master` has
/// that checksum, written as `sha256:HEX` or `sha1:HEX`.
pub(super) fn check_line(master: &Path, checksum: &str) -> String {
    let (kind, hex) = checksum.split_once(':').unwrap_or(("sha256", checksum));
    let master = quote(&master.display().to_string());
    // Read from a pipe: of a file, its name would have to be escaped.
    format!(
        "[ \"$({kind}sum <{master})\" = '{hex}  -' ] || {{ echo {} >&2; exit 3; }}\n",
        quote(&format!(
            "the file under the overlay is missing or not the one that was imported: {master}"
        )),
    )
}

fn call_line(program: &Path, args: &[String]) -> String {
    let mut text = String::from("exec ");
    text.push_str(&quote(&program.display().to_string()));
    for arg in args {
        text.push_str(if arg.starts_with('-') { " \\\n  " } else { " " });
        text.push_str(&quote(arg));
    }
    text.push('\n');
    text
}

/// A word for a shell.
pub(super) fn quote(word: &str) -> String {
    let is_plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '-' | '_' | '.' | '/' | '=' | ',' | ':' | '+' | '@' | '%')
    };
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A path as the value of an option: a comma is doubled.
pub(super) fn comma(path: &Path) -> String {
    comma_text(&path.display().to_string())
}

fn comma_text(text: &str) -> String {
    text.replace(',', ",,")
}

/// Where the guest's own variables come from.
pub(super) fn variables(ovmf: &Ovmf, folder: &Path) -> (PathBuf, PathBuf) {
    (ovmf.variables.clone(), folder.join(VARIABLES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_are_quoted_when_they_must() {
        assert_eq!(quote("a=b,c"), "a=b,c");
        assert_eq!(quote("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn a_script_calls_every_word() {
        let args = ["-name".to_owned(), "a b".to_owned()];
        let text = call_line(Path::new("/usr/bin/qemu"), &args);
        assert_eq!(text, "exec /usr/bin/qemu \\\n  -name 'a b'\n");
    }

    #[test]
    fn a_folder_too_deep_for_sockets_is_refused() {
        let deep = PathBuf::from("/").join("x".repeat(120));
        let error = background(&deep).expect_err("too long");
        assert_eq!(error.slug(), "import-folder");
    }
}
