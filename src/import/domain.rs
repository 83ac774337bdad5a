//! libvirt's description of the guest: a pure function of the plan.
//!
//! Source: libvirt 9, "Domain XML format"; judged by libvirt's own schema.

use std::fmt::Write as _;

use xml::escape::{escape_str_attribute, escape_str_pcdata};

use super::descriptor::BootKind;
use super::plan::{Nic, Plan, PlannedDisk};
use super::wishes::{Board, Bus, Graphics, Network};
use crate::descriptor::Firmware;
use crate::descriptor::libvirt::{EMULATED_CPU, OSINFO, osinfo_id};
use crate::machine::kvm::Accelerator;
use crate::units::KIB;

/// The namespace of what an import records in the guest.
pub(super) const NAMESPACE: &str = "urn:consign:import:1";

/// The guest's console, kept beside its disks.
pub const CONSOLE_LOG: &str = "console.log";

/// Renders the domain.
#[must_use]
pub fn render(plan: &Plan, accelerator: Accelerator) -> String {
    let mut out = Lines::default();
    let kind = match (plan.kind, accelerator) {
        (BootKind::Xen, _) => "xen",
        (BootKind::Hvm, Accelerator::Kvm) => "kvm",
        (BootKind::Hvm, Accelerator::Tcg) => "qemu",
    };
    out.open(&format!("domain type='{kind}'"));
    out.text("name", "", &plan.name);
    if let Some(uuid) = &plan.uuid {
        out.text("uuid", "", uuid);
    }
    metadata(&mut out, plan);
    let kib = |size: crate::units::ByteSize| (size.bytes() / KIB).to_string();
    out.text("memory", " unit='KiB'", &kib(plan.memory.most));
    out.text("currentMemory", " unit='KiB'", &kib(plan.memory.now));
    let cpuset = plan.cpuset.as_deref().map(|set| attribute("cpuset", set));
    out.text("vcpu", &cpuset.unwrap_or_default(), &plan.vcpus.to_string());
    boot(&mut out, plan);
    features(&mut out, plan);
    cpu(&mut out, plan, accelerator);
    if plan.kind == BootKind::Hvm {
        out.line("<clock offset='utc'/>");
    }
    out.line("<on_poweroff>destroy</on_poweroff>");
    out.line("<on_reboot>restart</on_reboot>");
    out.line("<on_crash>destroy</on_crash>");
    devices(&mut out, plan);
    out.close("domain");
    out.0
}

fn metadata(out: &mut Lines, plan: &Plan) {
    out.open("metadata");
    out.line(&import_element(plan));
    if let Some(os) = &plan.os
        && let Some(address) = osinfo_id(os)
    {
        let (prefix, namespace) = OSINFO;
        out.open(&format!("{prefix}:libosinfo xmlns:{prefix}='{namespace}'"));
        out.line(&format!("<{prefix}:os{}/>", attribute("id", &address)));
        out.close(&format!("{prefix}:libosinfo"));
    }
    out.close("metadata");
}

/// Which appliance the guest is, and where its files are.
pub(super) fn import_element(plan: &Plan) -> String {
    let mut line = format!("<va:import xmlns:va='{NAMESPACE}'");
    line.push_str(&attribute("name", &plan.name));
    if let Some(version) = &plan.version {
        line.push_str(&attribute("version", version));
    }
    line.push_str(&attribute("descriptor", &plan.digest.to_string()));
    line.push_str(&attribute("folder", &plan.folder.display().to_string()));
    line + "/>"
}

fn boot(out: &mut Lines, plan: &Plan) {
    if plan.is_pygrub {
        out.text("bootloader", "", "pygrub");
    }
    let uefi = plan.kind == BootKind::Hvm && plan.firmware != Firmware::Bios;
    out.open(if uefi { "os firmware='efi'" } else { "os" });
    match plan.kind {
        BootKind::Xen => out.text("type", &attribute("arch", &plan.arch), "xen"),
        BootKind::Hvm => {
            let more = attribute("arch", &plan.arch) + &attribute("machine", plan.board.name());
            out.text("type", &more, "hvm");
        }
    }
    if uefi {
        let state = if plan.firmware == Firmware::UefiSecure {
            "yes"
        } else {
            "no"
        };
        out.open("firmware");
        for name in ["enrolled-keys", "secure-boot"] {
            out.line(&format!("<feature enabled='{state}' name='{name}'/>"));
        }
        out.close("firmware");
    }
    if let Some(kernel) = &plan.kernel {
        out.text("kernel", "", &kernel.kernel.1.display().to_string());
        if let Some((_, initrd)) = &kernel.initrd {
            out.text("initrd", "", &initrd.display().to_string());
        }
        if !kernel.cmdline.is_empty() {
            out.text("cmdline", "", &kernel.cmdline);
        }
    } else if plan.kind == BootKind::Hvm {
        let device = if plan.from_cdrom { "cdrom" } else { "hd" };
        out.line(&format!("<boot dev='{device}'/>"));
    }
    out.close("os");
}

fn features(out: &mut Lines, plan: &Plan) {
    let secure = plan.firmware == Firmware::UefiSecure;
    if plan.features.is_empty() && !secure {
        return;
    }
    out.open("features");
    for feature in &plan.features {
        out.line(&format!("<{feature}/>"));
    }
    if secure {
        out.line("<smm state='on'/>");
    }
    out.close("features");
}

fn cpu(out: &mut Lines, plan: &Plan, accelerator: Accelerator) {
    if plan.kind == BootKind::Xen {
        return;
    }
    let model = match (plan.cpu.as_deref(), accelerator) {
        (Some("host" | "host-passthrough"), _) => "host-passthrough",
        (Some(model), _) => model,
        (None, Accelerator::Kvm) => "host-model",
        (None, Accelerator::Tcg) if plan.arch == "x86_64" => EMULATED_CPU,
        (None, Accelerator::Tcg) => return,
    };
    match model {
        "host-passthrough" | "host-model" | "maximum" => {
            out.line(&format!("<cpu mode='{model}'/>"));
        }
        model => {
            out.open("cpu mode='custom' match='exact'");
            out.text("model", " fallback='allow'", model);
            out.close("cpu");
        }
    }
}

fn devices(out: &mut Lines, plan: &Plan) {
    out.open("devices");
    for one in &plan.disks {
        disk(out, one);
    }
    if plan.disks.iter().any(|one| one.bus == Bus::Scsi) {
        out.line("<controller type='scsi' index='0' model='virtio-scsi'/>");
    }
    for one in &plan.nics {
        nic(out, one, plan.kind);
    }
    let log = plan.folder.join(CONSOLE_LOG).display().to_string();
    if plan.kind == BootKind::Xen {
        out.line("<console type='pty'/>");
    } else {
        out.open("serial type='pty'");
        out.line(&format!("<log{} append='off'/>", attribute("file", &log)));
        out.line("<target port='0'/>");
        out.close("serial");
        out.open("console type='pty'");
        out.line("<target type='serial' port='0'/>");
        out.close("console");
    }
    graphics(out, plan);
    if plan.kind == BootKind::Hvm {
        if plan.is_modern || plan.board == Board::Q35 {
            out.open("rng model='virtio'");
            out.text("backend", " model='random'", "/dev/urandom");
            out.close("rng");
        }
        out.line("<memballoon model='virtio'/>");
    }
    out.close("devices");
}

fn disk(out: &mut Lines, disk: &PlannedDisk) {
    let device = if disk.is_cd { "cdrom" } else { "disk" };
    out.open(&format!("disk type='file' device='{device}'"));
    let driver = if disk.bus == Bus::Xen {
        String::new()
    } else {
        attribute("name", "qemu")
    };
    out.line(&format!(
        "<driver{driver}{}/>",
        attribute("type", disk.format)
    ));
    let path = disk.path.display().to_string();
    out.line(&format!("<source{}/>", attribute("file", &path)));
    let bus = attribute("bus", disk.bus.name());
    out.line(&format!("<target{}{bus}/>", attribute("dev", &disk.target)));
    if let Some(serial) = serial(disk) {
        out.text("serial", "", serial);
    }
    if disk.is_cd {
        out.line("<readonly/>");
    }
    out.close("disk");
}

/// A disk's name as the guest sees it, where it is short and plain.
pub(super) fn serial(disk: &PlannedDisk) -> Option<&str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_serial =
        disk.bus != Bus::Xen && !disk.is_cd && disk.id.len() <= 20 && disk.id.chars().all(is_plain);
    is_serial.then_some(disk.id.as_str())
}

fn nic(out: &mut Lines, nic: &Nic, kind: BootKind) {
    let (form, source) = match &nic.network {
        Network::Named(name) => ("network", Some(attribute("network", name))),
        Network::Bridge(name) => ("bridge", Some(attribute("bridge", name))),
        Network::User => ("user", None),
    };
    out.open(&format!("interface type='{form}'"));
    if let Some(mac) = &nic.mac {
        out.line(&format!("<mac{}/>", attribute("address", mac)));
    }
    if let Some(source) = source {
        out.line(&format!("<source{source}/>"));
    }
    if kind == BootKind::Hvm {
        out.line(&format!("<model{}/>", attribute("type", &nic.model)));
    }
    out.close("interface");
}

fn graphics(out: &mut Lines, plan: &Plan) {
    match &plan.graphics {
        Graphics::None => return,
        Graphics::Vnc {
            port,
            listen,
            keymap,
        } => {
            let mut line = match port {
                Some(port) => format!("<graphics type='vnc' port='{port}' autoport='no'"),
                None => "<graphics type='vnc' port='-1' autoport='yes'".into(),
            };
            for (name, value) in [("listen", listen), ("keymap", keymap)] {
                if let Some(value) = value {
                    line.push_str(&attribute(name, value));
                }
            }
            out.line(&(line + "/>"));
        }
        Graphics::Spice => out.line("<graphics type='spice' autoport='yes'/>"),
        Graphics::Sdl => out.line("<graphics type='sdl'/>"),
    }
    if plan.kind == BootKind::Hvm {
        out.open("video");
        out.line("<model type='vga'/>");
        out.close("video");
    }
}

/// A space, a name and a quoted value.
fn attribute(name: &str, value: &str) -> String {
    format!(" {name}='{}'", escape_str_attribute(value))
}

/// Text of XML, two spaces in for each open element.
#[derive(Default)]
struct Lines(String, usize);

impl Lines {
    fn line(&mut self, text: &str) {
        let indent = self.1 * 2;
        writeln!(self.0, "{:indent$}{text}", "").expect("a string takes all");
    }

    fn open(&mut self, tag: &str) {
        self.line(&format!("<{tag}>"));
        self.1 += 1;
    }

    fn close(&mut self, name: &str) {
        self.1 = self.1.saturating_sub(1);
        self.line(&format!("</{name}>"));
    }

    fn text(&mut self, name: &str, attributes: &str, text: &str) {
        self.line(&format!(
            "<{name}{attributes}>{}</{name}>",
            escape_str_pcdata(text)
        ));
    }
}
