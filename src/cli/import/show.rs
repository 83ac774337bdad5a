//! What is printed of a plan and of what became of it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::draw::ReportFormat;
use crate::exec::escape;
use crate::import::descriptor::BootKind;
use crate::import::plan::{Make, Nic, PlannedDisk};
use crate::import::wishes::{Graphics, Network, Virt};
use crate::import::{Finding, ImportError, Imported, Plan};
use crate::machine::kvm::Accelerator;

/// The plan for people; units are always shown.
pub(super) fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(out, "  {name:<9} {}", escape(value)).expect("a string takes all");
    };
    let version = plan.version.as_deref().unwrap_or("without a version");
    line("guest", &format!("{} ({version})", plan.name));
    line("files", &plan.folder.display().to_string());
    let mut memory = plan.memory.now.to_string();
    if plan.memory.most != plan.memory.now {
        write!(memory, ", up to {}", plan.memory.most).expect("a string takes all");
    }
    line("memory", &memory);
    line("vcpus", &plan.vcpus.to_string());
    line("machine", &machine(plan));
    for disk in &plan.disks {
        line("disk", &disk_line(disk));
    }
    for nic in &plan.nics {
        line("network", &nic_line(nic));
    }
    if plan.nics.is_empty() {
        line("network", "none");
    }
    line("screen", screen(&plan.graphics));
    if let Some(kernel) = &plan.kernel {
        line("kernel", &kernel.kernel.0.path.display().to_string());
    }
    for remark in &plan.remarks {
        line("note", remark);
    }
    out
}

fn machine(plan: &Plan) -> String {
    if plan.kind == BootKind::Xen {
        return format!("Xen guest, {}", plan.arch);
    }
    let virt = match plan.virt {
        Virt::Auto => "KVM if it works",
        Virt::Kvm => "KVM",
        Virt::Qemu => "emulated",
    };
    format!(
        "{} {}, {} firmware, {} disks, {virt}",
        plan.arch,
        plan.board.name(),
        plan.firmware.name(),
        plan.bus.name(),
    )
}

fn disk_line(disk: &PlannedDisk) -> String {
    let from = match disk.origin() {
        Some(path) if disk.recipe.is_some() => format!("made of {}", path.display()),
        Some(path) => format!("{} of {}", disk.make.name(), path.display()),
        None => "new and empty".into(),
    };
    format!(
        "{} {} ({}): {}, {}, {from}",
        disk.target,
        disk.id,
        disk.usage.name(),
        disk.size,
        disk.format,
    )
}

fn nic_line(nic: &Nic) -> String {
    let place = match &nic.network {
        Network::Named(name) => format!("network {name}"),
        Network::Bridge(name) => format!("bridge {name}"),
        Network::User => "user mode".into(),
    };
    format!("{place}, {}", nic.model)
}

fn screen(graphics: &Graphics) -> &'static str {
    match graphics {
        Graphics::None => "none",
        Graphics::Vnc { .. } => "VNC",
        Graphics::Spice => "SPICE",
        Graphics::Sdl => "SDL",
    }
}

/// The same for programs.
pub(super) fn json(plan: &Plan) -> Value {
    json!({
        "name": plan.name,
        "version": plan.version,
        "descriptor": { "path": plan.descriptor, "sha256": plan.digest.hex() },
        "folder": plan.folder,
        "boot": plan.boot,
        "memory_bytes": plan.memory.now.bytes(),
        "max_memory_bytes": plan.memory.most.bytes(),
        "vcpus": plan.vcpus,
        "arch": plan.arch,
        "machine": plan.board.name(),
        "firmware": plan.firmware.name(),
        "disks": plan.disks.iter().map(disk_json).collect::<Vec<_>>(),
        "networks": plan.nics.iter().map(nic_json).collect::<Vec<_>>(),
        "screen": screen(&plan.graphics),
        "remarks": plan.remarks,
    })
}

fn disk_json(disk: &PlannedDisk) -> Value {
    let checked = matches!(disk.make.master(), Some((_, Some(_))));
    json!({
        "id": disk.id,
        "use": disk.usage.name(),
        "target": disk.target,
        "bus": disk.bus.name(),
        "format": disk.format,
        "path": disk.path,
        "size_bytes": disk.size.bytes(),
        "make": disk.make.name(),
        "from": disk.origin(),
        "has_checksum": checked,
        "is_new": matches!(disk.make, Make::Blank),
    })
}

fn nic_json(nic: &Nic) -> Value {
    let (kind, name) = match &nic.network {
        Network::Named(name) => ("network", Some(name)),
        Network::Bridge(name) => ("bridge", Some(name)),
        Network::User => ("user", None),
    };
    json!({ "type": kind, "name": name, "model": nic.model, "mac": nic.mac })
}

/// What became of it.
pub(super) fn imported(imported: &Imported, format: ReportFormat, did: &str) -> String {
    let accelerator = imported.accelerator.map(|accelerator| match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    });
    if format == ReportFormat::Json {
        let object = json!({
            did: imported.name,
            "folder": imported.folder,
            "connect": imported.connect,
            "accelerator": accelerator,
            "is_running": imported.is_running,
            "ready": imported.ready.as_ref().map(|line| &line.text),
        });
        return format!("{object}\n");
    }
    let (name, folder) = (&imported.name, imported.folder.display());
    let next = match (&imported.connect, imported.is_running) {
        (Some(uri), true) => {
            format!("it runs; its console: virsh --connect {uri} console {name}")
        }
        (Some(uri), false) => format!("start it: virsh --connect {uri} start {name}"),
        (None, true) => "it runs; its console is kept in console.log there".to_owned(),
        (None, false) => "start it: start.sh there".to_owned(),
    };
    let ready = imported.ready.as_ref();
    let ready = ready.map(|line| format!("  {}\n", escape(&line.text)));
    let ready = ready.unwrap_or_default();
    format!("{did} `{name}`\n  files in {folder}\n  {next}\n{ready}")
}

/// What is wrong in a descriptor, one line each.
pub(in crate::cli) fn finding_lines(error: &ImportError) -> Vec<String> {
    let Some((file, findings)) = error.findings() else {
        return Vec::new();
    };
    let line = |finding: &Finding| format!("{file}:{finding}");
    findings.iter().map(line).collect()
}

/// The same for programs.
pub(in crate::cli) fn finding_objects(error: &ImportError) -> Vec<serde_json::Value> {
    let Some((file, findings)) = error.findings() else {
        return Vec::new();
    };
    let object = |finding: &Finding| {
        json!({
            "file": file,
            "line": finding.place.line,
            "column": finding.place.column,
            "element": finding.element,
            "message": finding.problem.to_string(),
            "help": null,
        })
    };
    findings.iter().map(object).collect()
}
