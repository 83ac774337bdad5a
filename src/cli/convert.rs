//! `consign convert`: the same disk in another container.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::build::Context;
use super::error::{CliError, output};
use crate::error::Error;
use crate::image::{
    Compression, FileSum, ImageFormat, ImageSpec, WriteOptions, ZstdLevel, write_all,
};
use crate::inspect;

/// Puts the disk of an image into another container. Reads raw, raw.zst,
/// qcow2, VMDK, VHDX and VHD. The content root stays the same.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConvertArgs {
    /// The image.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The container: raw, raw.zst, qcow2, vmdk, vhdx, vhd.
    #[arg(short = 'O', long, value_name = "FORMAT", value_parser = super::build::image_format)]
    format: ImageFormat,
    /// The file that is written, whole or not at all.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What the image is, instead of what its first bytes say.
    #[arg(long, value_name = "FORMAT", value_parser = super::build::image_format)]
    input_format: Option<ImageFormat>,
    /// Packs qcow2 with zstd of this level, 1 to 19, instead of deflate; the
    /// level of raw.zst.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    zstd: Option<ZstdLevel>,
    /// Worker threads; as many as there are cores when left out.
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

fn level(text: &str) -> Result<ZstdLevel, String> {
    text.parse()
        .map_err(|_| "use a level from 1 to 19".to_owned())
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
    let name = args.output.file_name().map(|name| name.to_string_lossy());
    let Some(name) = name else {
        return Err(CliError::NoFileName {
            path: args.output.clone(),
        }
        .into());
    };
    let mut spec = ImageSpec {
        file_name: name.into_owned(),
        sum: FileSum::Skip,
        ..ImageSpec::new("", args.format)
    };
    if let Some(level) = args.zstd {
        spec.compression = Compression::Zstd(level);
    }
    let folder = args
        .output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let options = WriteOptions {
        threads: args.jobs,
        cluster_cache: None,
    };
    let made = write_all(
        &[spec],
        image.disk.as_ref(),
        folder.unwrap_or(std::path::Path::new(".")),
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
