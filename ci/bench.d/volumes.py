"""From a tree to an ext4 volume, beside `mke2fs -d`: the reference appliance's
packages, ten of them in one volume, and one large directory.

mke2fs reads the same tree from a mounted volume of ours, so it needs root. It
reads metadata from the host's file system; ours come from the layer's tar."""

import io
import tarfile
from contextlib import contextmanager

from common import MIB, TARGET, Run, at_most, ratio

GIB_IN_MIB = 1024
WRITER = TARGET / "release/examples/tree-to-ext4"


def measure(bench):
    Run(["cargo", "build", "--locked", "--release", "--example", "tree-to-ext4"])
    folder = bench.work / "volumes"
    folder.mkdir()
    reference = largest_layer(bench.site.cache)
    yield from beside_mke2fs(bench, folder, "the reference appliance's packages", reference, 2, 2)
    crowd = folder / "crowd.tar"
    make_crowd(crowd, 20_000)
    yield from beside_mke2fs(bench, folder, "a directory of 20,000 files", crowd, 15, 1)
    large = folder / "large.tar"
    copies(reference, large, 4 * GIB_IN_MIB)
    yield from beside_mke2fs(bench, folder, "4 GiB of files", large, 2, 8)
    yield from memory(folder, large)
    large.unlink()


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


def copies(reference, tar, mib):
    """As many copies as hold `mib` of files, each below a folder of its own."""
    with tarfile.open(reference) as members:
        content = sum(member.size for member in members)
    parts = []
    for number in range(-(-mib * MIB // content)):
        part = tar.with_name(f"part-{number}.tar")
        rename(reference, part, f"copy-{number}")
        parts.append(part)
    parts[0].rename(tar)
    for part in parts[1:]:
        Run(["tar", "--concatenate", "-f", tar, part])
        part.unlink()


def rename(reference, part, prefix):
    with tarfile.open(reference) as members, \
            tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as out:
        for member in members:
            content = members.extractfile(member) if member.isfile() else None
            member.name = f"{prefix}/{member.name}"
            member.pax_headers.pop("path", None)
            if member.islnk():
                member.linkname = f"{prefix}/{member.linkname}"
                member.pax_headers.pop("linkpath", None)
            out.addfile(member, content)


def memory(folder, tar):
    """A volume of 64 GiB with those 4 GiB, beside one of 8 GiB."""
    peaks = []
    for gib in (8, 64):
        image = folder / "memory.img"
        peaks.append(Run([WRITER, tar, image, str(gib * GIB_IN_MIB)]).peak / MIB)
        image.unlink()
    yield at_most("peak memory, 64 GiB volume with 4 GiB of files", peaks[1], 256, " MiB", 0)
    yield at_most("the same, beside a volume of 8 GiB", peaks[1] / peaks[0], 1.25, "x")
