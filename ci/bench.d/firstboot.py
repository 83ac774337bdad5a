"""What the agent costs on a first start and on a later one, in instructions.

QEMU with `-icount shift=0` gives the guest a clock that advances one nanosecond
an instruction, so that systemd's processor time of a unit is the number of
instructions of its processes, in the agent, in what it calls and in the kernel
for them. Not in it: `/init`, which loads the kernel's modules.
"""

import json
import socket
import subprocess
import time

from common import Row, Run, fail

READY = "VA state=ready"
# systemd's message about what a unit that ended has used (sd-messages.h).
USED = "ae8f7b866b0347b9af31fe1c80b127c0"
ASK = f"""systemctl show -P CPUUsageNSec appliance-config.service
journalctl -b -q -o json --output-fields=UNIT,CPU_USAGE_NSEC MESSAGE_ID={USED}"""
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
        parts = ", ".join(f"{unit} {count / 1e9:.3f}" for unit, count in sorted(used.items()))
        total = sum(used.values()) / 1e9
        yield Row(f"the agent's own processes on a {what} start ({parts})",
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
        "-append", (site.out / "cmdline").read_text().strip(),
        *(word for drive in drives for word in ("-drive", drive)),
    ], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + limit
        while not (console.exists() and READY in console.read_text(errors="replace")):
            if child.poll() is not None or time.monotonic() > end:
                fail(f"a guest did not get ready: {console.read_text(errors='replace')[-800:]}")
            time.sleep(0.5)
        text = ssh(port, key, "sleep 1\n" + ASK)
        ssh(port, key, "systemctl --no-block poweroff")
        child.wait(300)
    finally:
        child.kill()
        child.wait()
    config, *lines = text.splitlines()
    used = {"config": int(config)}
    for entry in map(json.loads, lines):
        unit = entry.get("UNIT", "")
        if unit.startswith("appliance-") and "CPU_USAGE_NSEC" in entry:
            name = unit.removeprefix("appliance-").removesuffix(".service")
            used[name] = used.get(name, 0) + int(entry["CPU_USAGE_NSEC"])
    if "verify" not in used:
        fail(f"systemd did not say what the agent used: {text[-800:]}")
    return used


def ssh(port, key, command):
    done = subprocess.run([
        "ssh", "-q", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=120",
        "root@127.0.0.1", command,
    ], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        fail(f"ssh: {done.stderr}")
    return done.stdout
