"""From a tree to an ext4 volume, beside `mke2fs -d`: the reference appliance's
packages, and one large directory. Many packages in one volume: `large`.

mke2fs reads the same tree from a mounted volume of ours, so it needs root. It
reads metadata from the host's file system; ours come from the layer's tar."""

import io
import tarfile
from contextlib import contextmanager

from common import TARGET, Run, ratio

GIB_IN_MIB = 1024
WRITER = TARGET / "release/examples/tree-to-ext4"


def measure(bench):
    build_writer()
    folder = bench.work / "volumes"
    folder.mkdir()
    reference = largest_layer(bench.site.cache)
    yield from beside_mke2fs(bench, folder, "the reference appliance's packages", reference, 2, 2)
    crowd = folder / "crowd.tar"
    make_crowd(crowd, 20_000)
    yield from beside_mke2fs(bench, folder, "a directory of 20,000 files", crowd, 15, 1)


def build_writer():
    Run(["cargo", "build", "--locked", "--release", "--example", "tree-to-ext4"])


def largest_layer(cache):
    """The packages' layer: a plain tar in the store."""
    return max((cache / "consign/blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)


def beside_mke2fs(bench, folder, what, tar, divisor, gib):
    ours, theirs = folder / "ours.img", folder / "theirs.img"
    Run([WRITER, tar, ours, str(gib * GIB_IN_MIB)])
    with mounted(ours, folder / "tree") as tree:
        runs = bench.in_turn({
            "consign": lambda: ours_of(tar, folder / "again.img", gib),
            "mke2fs": lambda: mke2fs(tree, theirs, gib),
        }, warm_up=True)
    yield ratio(f"{what}: to an ext4 volume, against mke2fs -d",
                runs["consign"], runs["mke2fs"], divisor)
    for image in (ours, theirs, folder / "again.img"):
        image.unlink()


def ours_of(tar, image, gib):
    image.unlink(missing_ok=True)
    return Run([WRITER, tar, image, str(gib * GIB_IN_MIB)])


def mke2fs(tree, image, gib):
    image.unlink(missing_ok=True)
    with open(image, "wb") as file:
        file.truncate(gib << 30)
    return Run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, image])


@contextmanager
def mounted(image, folder):
    folder.mkdir(exist_ok=True)
    Run(["mount", "-o", "ro,loop,noload", image, folder])
    try:
        yield folder
    finally:
        Run(["umount", folder])


def make_crowd(tar, files):
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
        for number in range(files):
            content = f"file {number}\n".encode()
            member = tarfile.TarInfo(f"crowd/a file with the number {number}")
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
