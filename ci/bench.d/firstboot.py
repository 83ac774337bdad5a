"""What the agent costs on a first start and on a later one, in instructions.

QEMU with `-icount shift=0` gives the guest a clock that advances one nanosecond
an instruction, so that systemd's processor time of a unit is the number of
instructions of its processes, in the agent, in what it calls and in the kernel
for them. Beside them it tells what `/init` had of the processor, by the kernel's
own trace, but for its time in `finit_module`; the limits are for services, as
the figures of cloud-init that they come from. Nowhere in it: what systemd and
udev do because of us.
"""

import re
import socket
import subprocess
import time

from common import Row, Run, fail

READY = "VA state=ready"
UNITS = ["config", "verify", "resolv"]
TRACE = ("trace_buf_size=16M trace_event=sched:sched_switch,sched:sched_process_exec,"
         "syscalls:sys_enter_finit_module,syscalls:sys_exit_finit_module")
# `/init` is over within the first 20,000 lines.
ASK = f"""while systemctl -q is-active appliance-verify; do sleep 1; done
for unit in {" ".join(UNITS)}; do
  echo $unit $(systemctl show -P CPUUsageNSec appliance-$unit.service)
done
mount -t tracefs none /sys/kernel/tracing
head -n 20000 /sys/kernel/tracing/trace"""
EVENT = re.compile(r"-(\d+) +\[\d+\] +\S+ +(\d+\.\d+): (.*)")
SITE = """schema = 1
[config]
id = "bench"
serial = 1
[system]
hostname = "bench.example.org"
timezone = "UTC"
[[nic]]
match = {{ name = "e*" }}
address = ["10.0.2.15/24"]
gateway = ["10.0.2.2"]
[dns]
servers = ["10.0.2.3"]
[user.root]
ssh_keys = ["{key}"]
[user.ann]
ssh_keys = ["{key}"]
[role]
name = "web"
[app]
title = "Bench"
listen_port = 80
"""


def measure(bench):
    site = bench.site
    folder = bench.work / "first-boot"
    folder.mkdir()
    Run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"])
    key = (folder / "key.pub").read_text().strip()
    (folder / "site.toml").write_text(SITE.format(key=key))
    site.consign("config", "disk", folder / "site.toml", "-o", folder / "site.img")
    image = next(site.out.glob("*.qcow2")).resolve()
    disk = folder / "disk.qcow2"
    Run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, disk])
    for what, limit, media in [("first", 0.10, [folder / "site.img"]), ("later", 0.02, [])]:
        used = boot(site, disk, media, folder / "key")
        started = used.pop("/init") / 1e9
        parts = ", ".join(f"{unit} {count / 1e9:.3f}" for unit, count in sorted(used.items()))
        total = sum(used.values()) / 1e9
        yield Row(f"the agent's services on a {what} start ({parts}; beside them /init {started:.3f})",
                  f"{total:.3f} G instructions", f"<= {limit:.2f}", total <= limit)


def boot(site, disk, media, key, limit=900):
    """Instructions of the agent's units, by unit, of one start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    console = disk.with_suffix(".log")
    console.unlink(missing_ok=True)
    drives = [f"if=virtio,format=qcow2,file={disk}"]
    drives += [f"if=virtio,format=raw,file={medium}" for medium in media]
    child = subprocess.Popen([
        "qemu-system-x86_64", "-accel", "tcg", "-icount", "shift=0", "-cpu", "Nehalem",
        "-machine", "q35", "-smp", "1", "-m", "1024", "-nodefaults", "-no-user-config",
        "-no-reboot", "-display", "none", "-device", "virtio-rng-pci",
        "-serial", f"file:{console}",
        "-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:22",
        "-device", "virtio-net-pci,netdev=n0,romfile=",
        "-kernel", str(site.out / "vmlinuz"), "-initrd", str(site.out / "initrd"),
        "-append", f"{(site.out / 'cmdline').read_text().strip()} {TRACE}",
        *(word for drive in drives for word in ("-drive", drive)),
    ], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + limit
        while not (console.exists() and READY in console.read_text(errors="replace")):
            if child.poll() is not None or time.monotonic() > end:
                fail(f"a guest did not get ready: {console.read_text(errors='replace')[-800:]}")
            time.sleep(0.5)
        text = ssh(port, key, ASK)
        ssh(port, key, "systemctl --no-block poweroff")
        child.wait(300)
    finally:
        child.kill()
        child.wait()
    lines = text.splitlines()
    told = [line.split(maxsplit=1) for line in lines[:len(UNITS)]]
    # One that never ran has no number.
    used = {name: int(count) for name, count in told if count.isdigit()}
    if not {"config", "verify"} <= used.keys():
        fail(f"systemd did not say what the agent used: {lines[:5]}")
    used["/init"] = init(lines[len(UNITS):])
    return used


def init(trace):
    """Nanoseconds of the processor that `/init` had, without its modules."""
    total, modules, since, is_loading = 0.0, 0, None, False
    for event in filter(None, map(EVENT.search, trace)):
        pid, now, what = int(event[1]), float(event[2]), event[3]
        if since is not None and pid == 1:
            total += 0 if is_loading else now - since
            since = now
        if "sched_process_exec" in what and pid == 1:
            if "filename=/init " in what:
                since = now
            elif since is not None:
                if not modules:
                    fail("the trace knows no module that /init loaded")
                return round(total * 1e9)
        elif since is not None and "sched_switch" in what and pid != 1:
            since = now
        elif what.startswith("sys_finit_module") and pid == 1:
            is_loading = "->" not in what
            modules += is_loading
    fail("the kernel's trace does not tell where /init ends")


def ssh(port, key, command):
    done = subprocess.run([
        "ssh", "-q", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=120",
        "root@127.0.0.1", command,
    ], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        fail(f"ssh: {done.stderr}")
    return done.stdout
