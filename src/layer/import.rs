//! `tar`, `oci` and `run` layers: from a recipe to the layer's tar.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compression::{Hashing, UnpackError, unpack_to};
use super::sandbox::protocol::{Request, RunJob};
use super::source::oci::{Blobs, Image};
use super::spec::{ArchiveOrigin, ImageOrigin, LayerSpec, OciRecipe, Recipe, RunRecipe, TarRecipe};
use super::tar::{Form, SparseFile, TarSum, read_selected, write_delta};
use super::{Below, Bench, DebSource, LayerError, LayerShop, ask, files, rules};
use crate::digest::Digest;
use crate::report::Reporter;
use crate::tree::{Blob, TreeDelta};

/// A layer's tar that is not in the store yet.
pub(super) type Made = (PathBuf, TarSum);

pub(super) fn tar_layer(
    recipe: &TarRecipe,
    shop: &LayerShop<'_>,
    bench: &mut Bench,
) -> Result<Made, LayerError> {
    let archive = match &recipe.origin {
        ArchiveOrigin::File(path) => path.clone(),
        ArchiveOrigin::Url(url) => shop.debs.remote()?.archive(url, &recipe.sha256)?,
    };
    let output = bench.next_output(&shop.store)?;
    let blob = unpacked(&archive, &recipe.sha256, &output.with_extension("unpacked"))?;
    let mut delta = read_selected(&blob, &recipe.selection, Form::Strict)?;
    rules::apply_to_all(&mut delta, &recipe.rules);
    Ok((output.clone(), write(&delta, &output)?))
}

/// The uncompressed form of `archive`, as a new file at `place`.
fn unpacked(archive: &Path, sha256: &Digest, place: &Path) -> Result<Arc<Blob>, LayerError> {
    let failed = |source| LayerError::Read {
        path: archive.to_owned(),
        source,
    };
    let written = |source| LayerError::Store {
        action: "write",
        path: place.to_owned(),
        source,
    };
    let file = File::open(archive).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut stream = Hashing::new(file);
    let outcome = unpack_to(&mut stream, length, place);
    // Damage is best explained by the digest, so it is looked at first.
    io::copy(&mut stream, &mut io::sink()).map_err(failed)?;
    let found = stream.finish();
    if found != *sha256 {
        return Err(LayerError::ArchiveDigest {
            path: archive.to_owned(),
            expected: *sha256,
            found,
        });
    }
    outcome.map_err(|error| match error {
        UnpackError::Write(source) => written(source),
        UnpackError::Read(source) => LayerError::Archive {
            path: archive.to_owned(),
            source,
        },
    })?;
    Blob::open(place).map_err(written)
}

pub(super) fn oci_layer(
    recipe: &OciRecipe,
    shop: &LayerShop<'_>,
    bench: &mut Bench,
) -> Result<Made, LayerError> {
    let output = bench.next_output(&shop.store)?;
    let folder = output.with_extension("image");
    std::fs::create_dir(&folder).map_err(|source| LayerError::Store {
        action: "make the folder",
        path: folder.clone(),
        source,
    })?;
    let (blobs, image) = match &recipe.origin {
        ImageOrigin::Folder(path) => {
            let blobs = Blobs::Folder(path.clone());
            let image = Image::open(&blobs, &recipe.digest)?;
            (blobs, image)
        }
        ImageOrigin::Archive(path, name) => {
            let archive = unpacked(path, &recipe.digest, &folder.join("archive.tar"))?;
            let blobs = Blobs::of_tar(&archive, &path.display().to_string())?;
            let image = Image::in_archive(&blobs, name.as_deref())?;
            (blobs, image)
        }
        ImageOrigin::Registry(repository) => {
            let blobs = shop.debs.remote()?.image(repository, &recipe.digest)?;
            let image = Image::open(&blobs, &recipe.digest)?;
            (blobs, image)
        }
    };
    let mut delta = image.stack(&blobs, &folder, &recipe.selection)?;
    rules::apply_to_all(&mut delta, &recipe.rules);
    let built = write(&delta, &output)?;
    drop(delta);
    // What is left is removed with the workplace.
    drop(std::fs::remove_dir_all(&folder));
    Ok((output, built))
}

/// Brings into the cache what the layers of `specs` take from elsewhere.
///
/// # Errors
///
/// [`LayerError`], with the layer's name.
pub fn fetch(specs: &[LayerSpec], source: &dyn DebSource) -> Result<(), LayerError> {
    for spec in specs {
        let fetched = match &spec.recipe {
            Recipe::Tar(TarRecipe {
                origin: ArchiveOrigin::Url(url),
                sha256,
                ..
            }) => source
                .remote()
                .and_then(|remote| Ok(remote.archive(url, sha256).map(drop)?)),
            Recipe::Oci(OciRecipe {
                origin: ImageOrigin::Registry(repository),
                digest,
                ..
            }) => source
                .remote()
                .and_then(|remote| Ok(remote.image(repository, digest).map(drop)?)),
            _ => Ok(()),
        };
        fetched.map_err(|error| error.in_layer(&spec.name))?;
    }
    Ok(())
}

fn write(delta: &TreeDelta, output: &Path) -> Result<TarSum, LayerError> {
    let file = File::create_new(output).map_err(|source| LayerError::Store {
        action: "write",
        path: output.to_owned(),
        source,
    })?;
    let written = write_delta(
        delta,
        BufWriter::with_capacity(256 << 10, SparseFile::new(file)),
    );
    let (_, sum) = written.map_err(|error| LayerError::writing(output, error))?;
    Ok(sum)
}

pub(super) fn run_layer(
    recipe: &RunRecipe,
    below: Below<'_>,
    shop: &LayerShop<'_>,
    bench: &mut Bench,
    step: &str,
    reporter: &dyn Reporter,
) -> Result<Made, LayerError> {
    let input = match &recipe.input {
        None => None,
        Some(files) => {
            let tar = bench.next_output(&shop.store)?;
            files::write(files, shop.source_date, &tar)?;
            Some(tar)
        }
    };
    bench.on_disk_when_full(|bench| {
        let output = bench.next_output(&shop.store)?;
        let root = bench.root_with(below, shop, reporter)?;
        let job = RunJob {
            script: recipe.script.clone(),
            input: input.clone(),
            environment: recipe.environment.clone().into_iter().collect(),
            network: recipe.network,
            output: output.clone(),
        };
        let built = ask(&mut root.session, &Request::Run(job), step, reporter)?;
        // The root holds this layer too from now on.
        root.layers += 1;
        Ok((output, built))
    })
}
