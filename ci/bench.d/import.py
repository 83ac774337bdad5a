"""What an import takes besides the hashing and libvirt's own time: a dry run,
and a guest with an overlay of 1 GiB that is defined and not started, in a
libvirt of its own (as the tests have it; needs root)."""

import hashlib
import os
import signal
import statistics
import subprocess
import time

from common import CONSIGN, REPO, Run, at_most, fail

VIRT_IMAGE = CONSIGN.parent / "virt-image"
START = REPO / "tests/it/support/libvirt.sh"

DESCRIPTOR = """<?xml version="1.0" encoding="UTF-8"?>
<image>
  <name version="1.0">bench</name>
  <domain>
    <boot type="hvm">
      <guest><arch>x86_64</arch></guest>
      <os><loader dev="hd"/></os>
      <drive disk="system"/>
      <drive disk="data"/>
    </boot>
    <devices><vcpu>1</vcpu><memory>65536</memory></devices>
  </domain>
  <storage>
    <disk id="system" file="disk.qcow2" format="qcow2" size="1024" use="system">
      <checksum type="sha256">{digest}</checksum>
    </disk>
    <disk id="data" file="data.raw" format="raw" size="1024" use="user"/>
  </storage>
</image>
"""

# Notes when each virsh began and ended, by the clock of the whole machine.
WATCHED = """#!/bin/sh
begin=$(date +%s%N)
{virsh} "$@"
code=$?
echo "$begin $(date +%s%N)" >>{log}
exit $code
"""


def measure(bench):
    folder = bench.work / "import"
    folder.mkdir()
    disk = folder / "disk.qcow2"
    Run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"])
    # Some content, so that there is something to hash.
    Run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 64M", disk])
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    descriptor = folder / "appliance.xml"
    descriptor.write_text(DESCRIPTOR.format(digest=digest))
    yield dry_run(bench, folder, descriptor)
    yield from in_libvirt(bench, folder, descriptor)


def dry_run(bench, folder, descriptor):
    storage = folder / "nowhere"
    command = [VIRT_IMAGE, descriptor, "--dry-run", "--connect", "none", "--storage", storage]
    runs = [Run(command) for _ in range(4 * bench.rounds)]
    if storage.exists():
        fail("a dry run made a folder")
    seconds = statistics.median(run.seconds for run in runs)
    return at_most("a dry run of an import", seconds * 1000, 50, " ms", 1)


def in_libvirt(bench, folder, descriptor):
    state, tools, log = folder / "libvirt", folder / "tools", folder / "virsh.log"
    state.mkdir()
    tools.mkdir()
    virsh = subprocess.run(["sh", "-c", "command -v virsh"], capture_output=True, text=True)
    watched = tools / "virsh"
    watched.write_text(WATCHED.format(virsh=virsh.stdout.strip(), log=log))
    watched.chmod(0o755)
    uri = f"qemu+unix:///system?socket={state}/sock/libvirt-sock"
    command = ["unshare", "-m", "--propagation", "private", "sh", START, state]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    daemon = subprocess.Popen(command, **quiet)
    try:
        wait_for(uri)
        env = {"PATH": f"{tools}:{os.environ['PATH']}"}
        place = ["--connect", uri, "--storage", folder / "guests"]
        beyond, hashing = [], []
        for turn in range(-1, bench.rounds):
            log.write_text("")
            options = ["--virt-type", "qemu", "--network", "user", "--noreboot", "--clone", "overlay"]
            run = Run([VIRT_IMAGE, descriptor, *options, *place], env=env)
            inside = sum(int(end) - int(begin) for begin, end in
                         (line.split() for line in log.read_text().splitlines())) / 1e9
            begin = time.monotonic()
            hashlib.sha256((folder / "disk.qcow2").read_bytes())
            if turn >= 0:
                beyond.append(run.seconds - inside)
                hashing.append(time.monotonic() - begin)
            Run([VIRT_IMAGE, "remove", "bench", *place], env=env)
        if (folder / "guests/bench").exists():
            fail("a removed guest left files")
        # The hashing is counted in: what it takes is in the name of the row.
        what = ("an import of an overlay without a boot, beyond virsh's own time "
                f"(some {statistics.median(hashing):.2f} s of hashing counted in)")
        yield at_most(what, statistics.median(beyond), 1, " s")
    finally:
        daemon.terminate()
        daemon.wait()
        for pid in state.glob("virtlogd.pid"):
            os.kill(int(pid.read_text()), signal.SIGTERM)


def wait_for(uri):
    deadline = time.monotonic() + 60
    ask = ["virsh", "--quiet", "--connect", uri, "capabilities"]
    while subprocess.run(ask, capture_output=True).returncode:
        if time.monotonic() > deadline:
            fail("no libvirt answers: ci/install installs one; it needs root")
        time.sleep(0.1)
