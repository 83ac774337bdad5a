//! What the fuzzers start from, replayed on the stable compiler.

use std::fs;
use std::sync::Arc;

use consign::image::ImageFormat;
use consign::import::descriptor::{Paths, read};
use consign::inspect::{self, Volume};
use consign::sparse::Bytes;

use super::hostile_disks::read_everything;

#[path = "../../fuzz/src/vhdx.rs"]
#[expect(unreachable_pub, reason = "the fuzz target uses it too")]
mod vhdx;

#[path = "../../fuzz/src/openpgp.rs"]
#[expect(unreachable_pub, reason = "the fuzz target uses it too")]
mod openpgp;

#[path = "../../fuzz/src/seal.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use it too")]
mod seal;

/// What the fuzzer starts from opens: else it never gets behind the first check.
#[test]
fn seeds_of_the_fuzzers_are_sound() {
    let corpus = crate::support::repo_root().join("tests/fuzz/corpus");
    let seed = |name: &str| fs::read(corpus.join(name)).expect("a seed");
    for (bytes, format) in [
        (vhdx::expand(&seed("vhdx/one_block")), ImageFormat::Vhdx),
        (seed("raw_zst/frames"), ImageFormat::RawZst),
        (seed("ova/package"), ImageFormat::Ova),
        (seal::vhd(&seed("vhd/fixed")), ImageFormat::Vhd),
        (seed("vmdk/qemu"), ImageFormat::Vmdk),
        (seed("qcow2/deflate"), ImageFormat::Qcow2),
        (seed("qcow2/zstd"), ImageFormat::Qcow2),
    ] {
        let source = Arc::new(Bytes(bytes.into()));
        let image = inspect::open_source(source, Some(format));
        let disk = image
            .unwrap_or_else(|error| panic!("{format}: {error}"))
            .disk;
        consign::image::content_root(disk.as_ref()).expect("readable");
    }
    let table = Bytes(seal::gpt(&seed("gpt/table")).into());
    let table = inspect::gpt::read(&table).expect("sound").expect("a table");
    assert!(!table.partitions.is_empty());
    for volume in [
        seed("fat/fat12"),
        seal::ext4(&seed("ext4/plain")),
        seal::ext4(&seed("ext4/sums")),
    ] {
        let volume = Volume::open(Arc::new(Bytes(volume.into())));
        let volume = volume.expect("sound").expect("a volume");
        assert!(!volume.list("/").expect("sound").is_empty());
    }
    read(&seed("descriptor/wiki"), Paths::Contained).expect("sound");
    assert!(openpgp::judge(&seed("openpgp/signed")));
}

#[test]
fn images_of_the_fuzzers_corpus_are_read_or_refused() {
    let corpus = crate::support::repo_root().join("tests/fuzz/corpus");
    for target in consign::tree::list_folder(&corpus).expect("a folder") {
        let folder = corpus.join(&target.name);
        let format = target.name.to_string_lossy().replace('_', ".").parse().ok();
        for file in consign::tree::list_folder(&folder).expect("a folder") {
            let input = fs::read(folder.join(&file.name)).expect("read");
            match target.name.to_str() {
                Some("descriptor") => {
                    let _read = read(&input, Paths::Contained);
                }
                Some("openpgp") => {
                    let _is_sound = openpgp::judge(&input);
                }
                Some("vhdx") => read_everything(vhdx::expand(&input), format),
                Some("vhd") => read_everything(seal::vhd(&input), format),
                Some("gpt") => read_everything(seal::gpt(&input), None),
                Some("ext4") => read_everything(seal::ext4(&input), None),
                _ => read_everything(input, format),
            }
        }
    }
}
