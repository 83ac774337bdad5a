"""Other builders, each with the appliance's own list of packages, from the
same mirror on loopback. What a peer does not do is said where it is started."""

import os
import re
import shutil
import textwrap
from pathlib import Path

from common import Run, fail

SECURITY = "debian-security"
KERNEL_VERSION = re.compile(r"linux-image-[0-9]")


def sources(mirror):
    """One line of apt's for each suite that the appliance's packages are of."""
    suite, keys = mirror.suite, "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    lines = [f"deb {keys} {mirror.main} {suite} main",
             f"deb {keys} {mirror.main} {suite}-updates main"]
    if mirror.has_security:
        lines.append(f"deb {keys} {mirror.address}/{SECURITY} {suite}-security main")
    return lines


def with_initramfs_tool(packages, tool):
    """A kernel package wants one; the appliance has its own instead."""
    has_one = any("initramfs" in name or name == "dracut" for name in packages)
    return list(packages) if has_one else [*packages, tool]


def mmdebstrap(mirror, packages, target, tool="tiny-initramfs", extra=()):
    """A tar (or folder) of a configured root: no disk, no loader, no initramfs
    of its own with `tiny-initramfs`."""
    _clear(target)
    names = with_initramfs_tool(packages, tool)
    return Run(["mmdebstrap", "--quiet", "--mode=root", "--variant=essential",
                f"--include={','.join(names)}", *extra, mirror.suite, str(target),
                *sources(mirror)])


class Vmdb2:
    """A raw disk with GPT, a root file system and the packages; no loader.
    Needs loop devices, which a container may lack."""

    # device-mapper is missing in some kernels that this runs on: partitions
    # become loop devices of their own, which is no more work for the peer.
    KPARTX = textwrap.dedent("""\
        #!/bin/sh
        # kpartx -asv FILE, kpartx -dsv FILE
        set -e
        mkdir -p /dev/mapper
        case $1 in
        -d*)
          losetup -n -O NAME -j "$2" | while read -r disk; do
            for link in /dev/mapper/"${disk#/dev/}"p*; do
              [ -L "$link" ] || continue
              losetup -d "$(readlink "$link")"
              rm "$link"
            done
            losetup -d "$disk"
          done ;;
        -a*)
          disk=$(losetup -f --show "$2")
          number=0
          sfdisk -q -l -o start,sectors "$disk" | tail -n +2 | while read -r start sectors; do
            number=$((number + 1))
            part=$(losetup -f --show -o $((start * 512)) --sizelimit $((sectors * 512)) "$disk")
            name=${disk#/dev/}p$number
            ln -sf "$part" "/dev/mapper/$name"
            echo "add map $name (0:0): 0 $sectors linear $disk $start"
          done ;;
        esac
        """)

    def __init__(self, mirror, packages, folder):
        self.mirror, self.folder = mirror, folder
        folder.mkdir()
        self.raw, self.qcow2 = folder / "disk.raw", folder / "disk.qcow2"
        self.tarball, self.page = folder / "root.tar.gz", folder / "style.css"
        self.page.write_text("body {}\n")
        self.env = {}
        # The node may be there without a driver behind it.
        if "device-mapper" not in Path("/proc/misc").read_text():
            tools = folder / "bin"
            tools.mkdir()
            (tools / "kpartx").write_text(self.KPARTX)
            (tools / "kpartx").chmod(0o755)
            self.env = {"PATH": f"{tools}:{os.environ['PATH']}"}
        # It reads one suite: kernels of others come by their metapackage.
        names = [name for name in with_initramfs_tool(packages, "initramfs-tools")
                 if not KERNEL_VERSION.match(name)]
        (folder / "spec.yaml").write_text(self._spec(names))

    def _spec(self, packages):
        listed = ", ".join(packages)
        return textwrap.dedent(f"""\
            steps:
              - mkimg: "{{{{ output }}}}"
                size: 4G
              - mklabel: gpt
                device: "{{{{ output }}}}"
              - mkpart: primary
                device: "{{{{ output }}}}"
                start: 10M
                end: 100%
                tag: root
              - kpartx: "{{{{ output }}}}"
              - mkfs: ext4
                partition: root
              - mount: root
              - unpack-rootfs: root
              - debootstrap: {self.mirror.suite}
                mirror: {self.mirror.main}
                variant: minbase
                target: root
                unless: rootfs_unpacked
              - apt: install
                tag: root
                recommends: false
                packages: [{listed}]
                unless: rootfs_unpacked
              - cache-rootfs: root
                unless: rootfs_unpacked
              - copy-file: /srv/style.css
                src: {self.page}
              - fstab: root
            """)

    def build(self):
        """All of it, with a qcow2 in the end."""
        self.tarball.unlink(missing_ok=True)
        return self._run()

    def change_one_file(self):
        """From the cached root tarball."""
        if not self.tarball.exists():
            fail("vmdb2 left no root tarball")
        self.page.write_text(self.page.read_text() + "/* changed */\n")
        return self._run()

    def _run(self):
        for old in (self.raw, self.qcow2):
            old.unlink(missing_ok=True)
        command = (f"vmdb2 --output {self.raw} --rootfs-tarball {self.tarball} "
                   f"{self.folder}/spec.yaml && qemu-img convert -f raw -O qcow2 -c "
                   f"-o compression_type=zstd {self.raw} {self.qcow2}")
        return Run(["sh", "-c", command], env=self.env)


def _clear(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
