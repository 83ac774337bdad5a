//! `consign convert`: the same disk in another container.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::build::Context;
use super::error::{CliError, output};
use super::package::PackageArgs;
use crate::appliance::Appliance;
use crate::descriptor::Machine;
use crate::descriptor::ovf::{Package, Seal};
use crate::error::Error;
use crate::factory::Shelf;
use crate::image::{
    Compression, Envelope, FileSum, ImageFormat, ImageSpec, WriteOptions, ZstdLevel, write_all,
};
use crate::inspect;
use crate::plan::BuildPlan;

/// Puts the disk of an image into another container. Reads raw, raw.zst,
/// qcow2, VMDK, VHDX, VHD and OVA. The content root stays the same.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConvertArgs {
    /// The image.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The container: raw, raw.zst, qcow2, vmdk, vhdx, vhd, ova.
    #[arg(short = 'O', long, value_name = "FORMAT", value_parser = super::build::image_format)]
    format: ImageFormat,
    /// The file that is written, whole or not at all.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// For an OVA: the appliance whose machine it describes.
    #[arg(long, value_name = "FILE")]
    appliance: Option<PathBuf>,
    #[command(flatten)]
    package: PackageArgs,
    /// What the image is, instead of what its first bytes say.
    #[arg(long, value_name = "FORMAT", value_parser = super::build::image_format)]
    input_format: Option<ImageFormat>,
    /// Packs qcow2 with zstd of this level, 1 to 19, instead of deflate; the
    /// level of raw.zst.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    zstd: Option<ZstdLevel>,
    /// Worker threads; as many as there are cores when left out, but for
    /// raw.zst from level 10 on: two, as each takes up to 80 MiB then.
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

fn level(text: &str) -> Result<ZstdLevel, String> {
    text.parse()
        .map_err(|_| "use a level from 1 to 19".to_owned())
}

/// The machine of an `appliance.toml`, as a build would describe it.
fn machine(file: &Path) -> Result<Machine, Error> {
    let appliance = Appliance::open(file)?;
    let properties = Shelf::of_appliance(&appliance)?.properties();
    Ok(BuildPlan::machine(&appliance, &properties)?)
}

/// Runs the subcommand.
///
/// # Errors
///
/// [`Error::Inspect`] for the image, [`Error::Image`] for what is written.
pub(super) fn run(
    args: &ConvertArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let image = inspect::open(&args.image, args.input_format)?;
    if image.disk.size().bytes() == 0 {
        let path = args.image.clone();
        return Err(CliError::EmptyDisk { path }.into());
    }
    let path = args.output.clone();
    let Some(name) = args.output.file_name() else {
        return Err(CliError::NoFileName { path }.into());
    };
    let Some(name) = name.to_str() else {
        return Err(CliError::NotUtf8 { path }.into());
    };
    let mut spec = ImageSpec {
        file_name: name.to_owned(),
        sum: FileSum::Skip,
        ..ImageSpec::new("", args.format)
    };
    if let Some(level) = args.zstd {
        spec.compression = Compression::Zstd(level);
    }
    let packing = args.package.open(context)?;
    let machine = args.appliance.as_deref().map(machine).transpose()?;
    let seal = packing.signer.as_ref().map(|signer| signer as &dyn Seal);
    let package = machine.as_ref();
    let package = package.map(|machine| Package::new(machine, packing.spec.sum, seal));
    let package = package.transpose()?;
    let folder = args
        .output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let options = WriteOptions {
        threads: args.jobs,
        cluster_cache: None,
        envelope: package.as_ref().map(|package| package as &dyn Envelope),
        voucher: None,
        ahead: None,
    };
    let made = write_all(
        &[spec],
        image.disk.as_ref(),
        folder.unwrap_or(Path::new(".")),
        &options,
        context.reporter,
    )?;
    for artifact in made {
        let root = artifact
            .content_root
            .map_or(String::new(), |root| root.to_string());
        writeln!(
            out,
            "wrote `{}`: {}, {}, content root {root}",
            args.output.display(),
            args.format,
            artifact.size
        )
        .map_err(output)?;
    }
    Ok(())
}
