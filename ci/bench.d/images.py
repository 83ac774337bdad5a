"""From a disk to a compressed image, beside `qemu-img convert -c -m 16 -W`: the
reference appliance's disk. One of 64 GiB with 4 GiB of files in it: `large`.

qemu-img's parallel deflate differs from run to run; ours does not."""

import shutil

from common import CONSIGN, MIB, Run, at_most, ratio


def measure(bench):
    folder = bench.work / "images"
    folder.mkdir()
    reference = next(bench.site.out.glob("*.raw"))
    yield from beside_qemu(bench, folder, "the reference appliance's disk", reference)
    yield from whole_against_packing(bench, folder, reference)


def beside_qemu(bench, folder, what, disk):
    for codec, ours, theirs, divisor, size in [
        ("deflate", [], [], 2.5, 1.03),
        ("zstd", ["--zstd", "3"], ["-o", "compression_type=zstd"], 1, 1.0),
    ]:
        mine, peer = folder / "ours.qcow2", folder / "theirs.qcow2"
        runs = bench.in_turn({
            "consign": lambda: convert(disk, mine, *ours),
            "qemu-img": lambda: Run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c",
                                     "-m", "16", "-W", *theirs, disk, peer]),
        }, warm_up=True)
        for attribute, unit in [("cpu", "processor"), ("seconds", "wall")]:
            yield ratio(f"{what}: to qcow2, {codec}, {unit} time, against qemu-img",
                        runs["consign"], runs["qemu-img"], divisor, attribute)
        yield at_most(f"the same, bytes of one to the other",
                      mine.stat().st_size / peer.stat().st_size, size, digits=4)
        peak = max(run.peak for run in runs["consign"])
        yield at_most("the same, memory", peak / MIB, 256, " MiB", 0)


def convert(disk, image, *options):
    return Run([CONSIGN, "convert", disk, "--input-format", "raw", "-O", "qcow2",
                "-o", image, *options])


def whole_against_packing(bench, folder, _reference):
    """All layers are in the cache, no packed cluster is: to raw and qcow2,
    against the layers' bytes through the same compressor."""
    site = bench.site
    content = folder / "content"
    with open(content, "wb") as out:
        for blob in sorted((site.cache / "consign/blobs/sha256").iterdir()):
            with open(blob, "rb") as layer:
                shutil.copyfileobj(layer, out)
        out.truncate((out.tell() + 511) // 512 * 512)

    def ours():
        shutil.rmtree(site.out, ignore_errors=True)
        shutil.rmtree(site.cache / "consign/clusters", ignore_errors=True)
        return site.build()

    runs = bench.in_turn({
        "consign": ours,
        "packing": lambda: convert(content, folder / "content.qcow2"),
    }, warm_up=True)
    yield ratio("cached layers to raw and qcow2, against packing the layers' bytes alone",
                runs["consign"], runs["packing"], 1 / 1.5)
    content.unlink()
