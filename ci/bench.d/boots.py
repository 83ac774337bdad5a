"""From power-on to the ready line, emulated: the appliance against the same
packages with Debian's own initramfs and units."""

import os
import statistics
import subprocess
import threading
from pathlib import Path

import peers
from common import Row, Run, fail
from mirror import Mirror

READY = b"VA state=ready"

UNIT = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/echo VA state=ready
[Install]
WantedBy=graphical.target multi-user.target
"""


def measure(bench):
    site = bench.site
    with Mirror(bench.work / "boot-mirror", site.lock()["suite"]) as mirror:
        theirs = debian_root(bench, site, mirror)
    ours = our_root(bench, site)
    pairs = [(seconds_to_ready(*ours), seconds_to_ready(*theirs)) for _ in range(bench.rounds)]
    mine, debian = (statistics.median(side) for side in zip(*pairs))
    yield Row("power-on to ready, against Debian's initramfs and units (TCG, direct kernel)",
              f"{mine:.1f} / {debian:.1f} cpu-s = {mine / debian:.2f}", "<= 0.80",
              mine <= 0.8 * debian)


def seconds_to_ready(kernel, initrd, command_line, drive, limit=600):
    """QEMU's processor seconds from power-on until the ready line."""
    child = subprocess.Popen([
        "qemu-system-x86_64", "-accel", "tcg", "-cpu", "Nehalem", "-machine", "q35",
        "-smp", "1", "-m", "1024", "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none", "-device", "virtio-rng-pci", "-serial", "stdio",
        "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", command_line, *drive,
    ], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    watchdog = threading.Timer(limit, child.kill)
    watchdog.start()
    try:
        for line in child.stdout:
            if READY in line:
                fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
    fail("a guest did not get ready")


def debian_root(bench, site, mirror):
    """The same packages with Debian's own initramfs and units, as a disk."""
    root, disk, hook = (bench.work / name for name in ("root", "debian.img", "hook"))
    hook.write_text(f"""#!/bin/sh
set -e
cat >"$1"/etc/systemd/system/bench-ready.service <<'END'
{UNIT}END
mkdir -p "$1"/etc/systemd/system/multi-user.target.wants
ln -s ../bench-ready.service "$1"/etc/systemd/system/multi-user.target.wants/
printf '/dev/vda / ext4 defaults 0 1\\n' >"$1"/etc/fstab
echo bench >"$1"/etc/hostname
""")
    hook.chmod(0o755)
    peers.mmdebstrap(mirror, site.packages(), root, tool="initramfs-tools",
                     extra=[f"--customize-hook={hook}"])
    with open(disk, "wb") as file:
        file.truncate(4 << 30)
    Run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, disk])
    kernel = next(path for path in sorted((root / "boot").glob("vmlinuz-*")))
    initrd = next(path for path in sorted((root / "boot").glob("initrd.img-*")))
    line = "root=/dev/vda rw console=ttyS0,115200 quiet"
    return kernel, initrd, line, ["-drive", f"if=virtio,format=raw,snapshot=on,file={disk}"]


def our_root(bench, site):
    config, disk = bench.work / "site.toml", bench.work / "site.img"
    config.write_bytes((site.folder / "layers/app/site.toml").read_bytes())
    site.consign("config", "disk", config, "-o", disk)
    image = next(site.out.glob("*.qcow2"))
    line = (site.out / "cmdline").read_text().strip()
    return (site.out / "vmlinuz", site.out / "initrd", line,
            ["-drive", f"if=virtio,format=qcow2,snapshot=on,file={image}",
             "-drive", f"if=virtio,format=raw,snapshot=on,file={disk}"])
