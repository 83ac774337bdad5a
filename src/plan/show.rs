//! A plan as text for people and as JSON for programs.

use std::fmt;

use serde_json::{Value, json};

use super::build::{BuildPlan, Contents};
use crate::descriptor::{Display, Machine};
use crate::digest::Digest;
use crate::layer::spec::{LayerSpec, Recipe};
use crate::units::ByteSize;

impl Contents {
    /// One word or two for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::CoreImage => "GRUB for BIOS",
            Self::Esp => "FAT, loaders and kernel",
            Self::Root => "ext4, the system",
            Self::Nothing => "empty, for updates",
            Self::Var => "ext4, state",
        }
    }
}

impl fmt::Display for BuildPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.name, self.version)?;
        writeln!(f, "\nplan         {}", self.digest())?;
        writeln!(f, "source date  {}", self.source_date)?;
        writeln!(f, "consign      {}", self.builder.version)?;
        writeln!(f, "agent        {}", self.builder.agent)?;
        self.write_layers(f)?;
        self.write_disk(f)?;
        writeln!(f, "\nOUTPUTS")?;
        for image in &self.images {
            writeln!(f, "  {}", image.file_name)?;
        }
        write_machine(f, &self.machine)
    }
}

impl BuildPlan {
    fn write_layers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || self.layers.iter().chain([&self.tools]);
        let width = all().map(|layer| layer.name.len()).max().unwrap_or(0);
        writeln!(f, "\nLAYERS")?;
        for layer in all() {
            writeln!(f, "  {:width$}  {}", layer.name, summary(layer))?;
        }
        Ok(())
    }

    fn write_disk(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nDISK  {}, {}", self.disk.size, self.disk.guid)?;
        writeln!(
            f,
            "  #  name    start     size      holds                    PARTUUID"
        )?;
        let rows = self.disk.partitions.iter().zip(&self.contents);
        for (number, (partition, contents)) in (1..).zip(rows) {
            writeln!(
                f,
                "  {number}  {:6}  {:8}  {:8}  {:23}  {}",
                partition.name,
                partition.start.to_string(),
                partition.size.to_string(),
                contents.word(),
                partition.guid,
            )?;
        }
        Ok(())
    }

    /// The same for programs; sizes are bytes.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows = self.disk.partitions.iter().zip(&self.contents);
        let partitions = rows.map(|(partition, contents)| {
            json!({
                "name": partition.name,
                "start": partition.start.bytes(),
                "size": partition.size.bytes(),
                "type": partition.type_guid.to_string(),
                "guid": partition.guid.to_string(),
                "holds": contents.word(),
            })
        });
        json!({
            "name": self.name,
            "version": self.version,
            "plan": self.digest(),
            "source_date": self.source_date.to_string(),
            "consign": self.builder.version,
            "agent": self.builder.agent,
            "layers": self.layers.iter().map(layer_json).collect::<Vec<_>>(),
            "tools": layer_json(&self.tools),
            "disk": {
                "size": self.disk.size.bytes(),
                "guid": self.disk.guid.to_string(),
                "partitions": partitions.collect::<Vec<_>>(),
            },
            "outputs": self.images.iter().map(|image| &image.file_name).collect::<Vec<_>>(),
            "machine": {
                "memory": self.machine.memory.bytes(),
                "vcpus": self.machine.vcpus,
                "nics": self.machine.nics,
                "firmware": self.machine.firmware.iter().map(|one| one.name()).collect::<Vec<_>>(),
            },
        })
    }
}

fn summary(layer: &LayerSpec) -> String {
    if let Recipe::Files(files) = &layer.recipe {
        return format!("files     {}", files.digest);
    }
    match &layer.recipe {
        Recipe::Tar(tar) => return format!("tar       {}", tar.sha256),
        Recipe::Oci(oci) => return format!("oci       {}", oci.digest),
        Recipe::Run(run) => {
            let network = if run.network { ", with network" } else { "" };
            return format!("run       {}{network}", Digest::of(&run.script));
        }
        _ => {}
    }
    let pins = BuildPlan::pins(layer);
    let bytes = pins
        .iter()
        .fold(0_u64, |sum, pin| sum.saturating_add(pin.size));
    let size = ByteSize::from_bytes(bytes);
    format!("packages  {} of them, {size} as .deb", pins.len())
}

fn layer_json(layer: &LayerSpec) -> Value {
    match &layer.recipe {
        Recipe::Files(files) => json!({
            "name": layer.name,
            "kind": "files",
            "folder": files.folder.to_string_lossy(),
            "digest": files.digest,
        }),
        Recipe::Tar(tar) => json!({
            "name": layer.name,
            "kind": "tar",
            "digest": tar.sha256,
        }),
        Recipe::Oci(oci) => json!({
            "name": layer.name,
            "kind": "oci",
            "digest": oci.digest,
        }),
        Recipe::Run(run) => json!({
            "name": layer.name,
            "kind": "run",
            "script": Digest::of(&run.script),
            "network": run.network,
        }),
        recipe => json!({
            "name": layer.name,
            "kind": if matches!(recipe, Recipe::Tools(_)) { "tools" } else { "packages" },
            "packages": BuildPlan::pins(layer),
        }),
    }
}

fn write_machine(f: &mut fmt::Formatter<'_>, machine: &Machine) -> fmt::Result {
    let firmware: Vec<_> = machine.firmware.iter().map(|one| one.name()).collect();
    writeln!(f, "\nMACHINE")?;
    writeln!(f, "  memory      {}", machine.memory)?;
    writeln!(f, "  processors  {}", machine.vcpus)?;
    writeln!(f, "  networks    {}", machine.nics)?;
    let screen = match machine.display {
        Display::Screen => "yes",
        Display::Headless => "no",
    };
    writeln!(f, "  screen      {screen}")?;
    writeln!(f, "  firmware    {}", firmware.join(", "))?;
    for disk in &machine.user_disks {
        writeln!(f, "  disk        {}, {}", disk.id, disk.size)?;
    }
    Ok(())
}
