"""What every area of ci/bench shares: programs with their cost, an appliance
of its own to build, and rows of the table."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
CONSIGN = TARGET / "release/consign"
# In a checkout consign makes the agent itself, always in here.
AGENT = REPO / "target/x86_64-unknown-linux-gnu/firstboot/consign-firstboot"
MIB = 1 << 20


def fail(message):
    sys.exit(f"ci/bench: {message}")


@dataclass
class Row:
    """One figure of the table."""

    what: str
    measured: str
    must: str
    holds: bool

    def text(self):
        return f"{'ok' if self.holds else 'MISSED':6}  {self.what}: {self.measured} ({self.must})"


def at_most(what, value, limit, unit="", digits=2):
    """A row for a figure that must not pass `limit`."""
    return Row(what, f"{value:.{digits}f}{unit}", f"<= {limit:g}{unit}", value <= limit)


def ratio(what, ours, theirs, divisor, attribute="seconds"):
    """A row for a median that must not pass one part in `divisor` of a peer's."""
    mine, peer = median(ours, attribute), median(theirs, attribute)
    unit = {"seconds": "s", "cpu": "cpu-s"}[attribute]
    return Row(what, f"{mine:.2f} / {peer:.2f} {unit} = 1/{peer / mine:.1f}",
               f"<= 1/{divisor:g}", mine * divisor <= peer)


def median(runs, attribute="seconds"):
    return statistics.median(getattr(run, attribute) for run in runs)


def table(rows):
    print("| figure | measured | must | |")
    print("|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.measured} | {row.must} | {'ok' if row.holds else 'MISSED'} |")


class Run:
    """What one program took: seconds, processor seconds, largest process.

    The processor seconds hold those of all children that it waited for; the
    peak is of the largest single process, and never below what this process
    itself once took: a child begins in its memory.
    """

    def __init__(self, command, cwd=REPO, env=None, is_good=(0,)):
        started = time.monotonic()
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(
                command, cwd=cwd, env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            self.seconds = time.monotonic() - started
            self.cpu = used.ru_utime + used.ru_stime
            self.peak = used.ru_maxrss * 1024
            if child.returncode not in is_good:
                said.seek(0)
                sys.stderr.buffer.write(said.read()[-4000:])
                fail(f"{Path(str(command[0])).name} ended with {child.returncode}")


class Site:
    """A copy of what a build reads, with a cache of its own."""

    # What a download leaves in the cache.
    DOWNLOADS = ("debs", "lists", "releases")

    def __init__(self, folder, cache=None):
        self.folder = folder
        folder.mkdir()
        shutil.copy(REPO / "appliance.toml", folder)
        shutil.copytree(REPO / "layers", folder / "layers", symlinks=True)
        self.cache = cache or folder / "cache"
        self.out = folder / "out"

    def consign(self, *args):
        return Run([CONSIGN, *args], cwd=self.folder, env={"XDG_CACHE_HOME": str(self.cache)})

    def build(self, *args):
        return self.consign("build", "-o", self.out, "--agent", AGENT, "--progress", "plain", *args)

    def keep_only_downloads(self):
        """The state after a download: nothing built, nothing in the way."""
        self._keep(self.DOWNLOADS)

    def keep_only_packages(self):
        """No layer and no image, but every package as the cache keeps it once
        it was unpacked: without compression."""
        self._keep((*self.DOWNLOADS, "plain"))

    def _keep(self, names):
        shutil.rmtree(self.out, ignore_errors=True)
        for entry in (self.cache / "consign").iterdir():
            if entry.name not in names:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def lock(self):
        return tomllib.loads((self.folder / "appliance.lock").read_text())

    def packages(self):
        """Names of the locked packages, without those of the tools layer."""
        layers = self.lock()["layer"]
        return sorted(package["name"] for layer in layers for package in layer.get("package", []))


class Bench:
    """One run of ci/bench: its folder, how many rounds, and a finished build."""

    def __init__(self, rounds):
        self.rounds = rounds
        self._folder = None
        self._site = None

    def __enter__(self):
        Run(["cargo", "build", "--locked", "--release"])
        (REPO / "target/bench").mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=REPO / "target/bench")
        self.work = Path(self._folder.name)
        # In a checkout a build makes the agent; the copies have none.
        Run([CONSIGN, "plan"])
        return self

    def __exit__(self, *_):
        self._folder.cleanup()

    @property
    def site(self):
        """The reference appliance, built once."""
        if self._site is None:
            self._site = Site(self.work / "site")
            self._site.build()
        return self._site

    def in_turn(self, contenders, warm_up=False):
        """Runs each of the named functions once a round: A B A B. Gives the
        runs by name; a warm-up round comes first and is not counted. What one
        left to write is not written in the time of the next."""
        runs = {name: [] for name in contenders}
        for turn in range(-1 if warm_up else 0, self.rounds):
            for name, contender in contenders.items():
                os.sync()
                run = contender()
                if turn >= 0:
                    runs[name].append(run)
        return runs
