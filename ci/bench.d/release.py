"""Verifying a release of 1 GiB, beside `sha256sum` over the same files on the
same cores. The files are as a release's: large images, small ones beside them."""

import hashlib
import os
import shutil

from common import CONSIGN, MIB, Row, Run, median

FILES = {"reference.qcow2": 512, "reference.ova": 300, "reference.raw.zst": 200,
         "sbom.spdx.json": 8, "sbom.cdx.json": 4}
LIMIT = 1.2


def measure(bench):
    release, key = bench.work / "release-1g", bench.work / "key"
    Run([CONSIGN, "keygen", "-o", key])
    make(release, key)
    total = sum(path.stat().st_size for path in release.iterdir())
    # As many at a time as consign reads, the large ones first.
    names = bench.work / "names"
    paths = sorted(release.iterdir(), key=lambda path: -path.stat().st_size)
    names.write_text("".join(f"{path}\n" for path in paths))
    cores = os.cpu_count()
    runs = bench.in_turn({
        "consign": lambda: Run([CONSIGN, "verify", release, "--key", f"{key}.pub"]),
        "sha256sum": lambda: Run(["xargs", "-a", names, "-P", str(cores), "-n", "1", "sha256sum"]),
    }, warm_up=True)
    for attribute, unit in [("seconds", "wall"), ("cpu", "processor")]:
        ours, theirs = (median(runs[name], attribute) for name in ("consign", "sha256sum"))
        yield Row(f"verifying a release of {total / (1 << 30):.2f} GiB, {unit} time, against "
                  f"sha256sum on {cores} cores",
                  f"{ours:.2f} / {theirs:.2f} s = {ours / theirs:.2f}",
                  f"<= {LIMIT:g}", ours <= LIMIT * theirs)
    shutil.rmtree(release)


def make(release, key):
    """A release of files that no build made: the manifest by hand, signed."""
    release.mkdir()
    noise = os.urandom(MIB - 8)
    for name, mib in FILES.items():
        with open(release / name, "wb") as file:
            for number in range(mib):
                file.write(number.to_bytes(8, "little") + noise)
    (release / "provenance.json").write_text("{}\n")
    lines = []
    for path in sorted(release.iterdir()):
        sums = []
        for kind in ("sha256", "sha512"):
            with open(path, "rb") as file:
                sums.append(hashlib.file_digest(file, kind).hexdigest())
        lines.append(f"file {' '.join(sums)} {path.stat().st_size} {path.name}\n")
    nothing = "sha256:" + "0" * 64
    head = ["consign release manifest v1", "name bench", "version 1.0", "epoch 0",
            "builder consign 0", f"agent {nothing}", f"lock {nothing}", f"disk 1048576 {nothing}"]
    (release / "MANIFEST").write_text("\n".join(head) + "\n" + "".join(lines))
    Run([CONSIGN, "sign", release, "--key", key])
