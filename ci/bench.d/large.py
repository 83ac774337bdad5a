"""4 GiB of files: as a tree to an ext4 volume beside `mke2fs -d`, and on a disk
of 64 GiB to a compressed image beside `qemu-img`, with the memory of every
format. Takes ten minutes a round."""

import os
import shutil
import tarfile
from pathlib import Path

from common import CONSIGN, MIB, REPO, Run, at_most
from images import beside_qemu
from volumes import GIB_IN_MIB, WRITER, beside_mke2fs, build_writer, largest_layer

GIB = 1 << 30
FORMATS = ("raw", "raw.zst", "qcow2", "vmdk", "vhdx", "vhd", "ova")


def measure(bench):
    folder = bench.work / "large"
    folder.mkdir()
    yield from volumes(bench, folder)
    yield from images(bench, folder)


def volumes(bench, folder):
    build_writer()
    tar = folder / "large.tar"
    copies(largest_layer(bench.site.cache), tar, 4 * GIB_IN_MIB)
    yield from beside_mke2fs(bench, folder, "4 GiB of files", tar, 2, 8)
    yield from memory_of_volumes(folder, tar)
    tar.unlink()


def images(bench, folder):
    disk = folder / "big.raw"
    make_big(disk)
    yield from beside_qemu(bench, folder, "4 GiB of files on 64 GiB", disk)
    for name in ("ours.qcow2", "theirs.qcow2"):
        (folder / name).unlink()
    yield from memory_of_formats(folder, disk)
    disk.unlink()


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


def memory_of_volumes(folder, tar):
    """A volume of 64 GiB with those 4 GiB, beside one of 8 GiB."""
    peaks = []
    for gib in (8, 64):
        image = folder / "memory.img"
        peaks.append(Run([WRITER, tar, image, str(gib * GIB_IN_MIB)]).peak / MIB)
        image.unlink()
    yield at_most("peak memory, 64 GiB volume with 4 GiB of files", peaks[1], 256, " MiB", 0)
    yield at_most("the same, beside a volume of 8 GiB", peaks[1] / peaks[0], 1.25, "x")


def memory_of_formats(folder, disk):
    for name in FORMATS:
        image = folder / f"memory.{name}"
        made = Run([CONSIGN, "convert", disk, "--input-format", "raw", "-O", name, "-o", image,
                    *(["--appliance", REPO / "appliance.toml"] if name == "ova" else [])])
        image.unlink()
        yield at_most(f"peak memory, 64 GiB disk with 4 GiB of files to {name}",
                      made.peak / MIB, 256, " MiB", 0)


def make_big(disk):
    """Files of this machine, each at a place of its own."""
    with open(disk, "wb") as out:
        out.truncate(64 * GIB)
        at = done = 0
        for folder, _, names in sorted(os.walk("/usr")):
            for name in sorted(names):
                path = Path(folder, name)
                if done >= 4 * GIB or path.is_symlink() or not path.is_file():
                    continue
                out.seek(at)
                # Piece by piece: what this process takes would count as the
                # peak of those that it starts.
                with open(path, "rb") as file:
                    shutil.copyfileobj(file, out)
                size = out.tell() - at
                done += size
                at = (at + size * 14) // 4096 * 4096 % (63 * GIB)
