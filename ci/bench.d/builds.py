"""How long builds take, whole and after a change, against other builders."""

import itertools
import shutil

import peers
from common import MIB, Site, at_most, fail, median, ratio
from mirror import Mirror


def measure(bench):
    site = bench.site
    lock = site.lock()
    with Mirror(bench.work / "mirror", lock["suite"]) as mirror:
        yield from whole(bench, site, mirror)
        yield from one_file(bench, site)
    yield from nothing(bench, site)
    yield from one_package_more(bench, site)


def whole(bench, site, mirror):
    """Packages are there, no layer is. Peers read them from the mirror on
    loopback, and read its lists too: they have no lock."""
    packages = site.packages()
    vmdb2 = peers.Vmdb2(mirror, packages, bench.work / "vmdb2")

    def ours():
        site.keep_only_downloads()
        return site.build()

    def again():
        site.keep_only_packages()
        return site.build()

    runs = bench.in_turn({
        "consign": ours,
        "consign, packages unpacked once before": again,
        "mmdebstrap": lambda: peers.mmdebstrap(mirror, packages, bench.work / "root.tar"),
        "vmdb2": vmdb2.build,
    }, warm_up=True)
    bench.whole, bench.vmdb2 = runs["consign"], vmdb2
    yield ratio("packages cached, no layer: to raw, qcow2 and descriptor, against mmdebstrap's tar",
                runs["consign"], runs["mmdebstrap"], 3)
    yield ratio("the same, against vmdb2's disk with qcow2", runs["consign"], runs["vmdb2"], 4)
    yield ratio("the same with packages in the form that our cache keeps, against mmdebstrap's tar",
                runs["consign, packages unpacked once before"], runs["mmdebstrap"], 3)
    peak = max(run.peak for run in runs["consign"])
    yield at_most("peak memory of the builder, whole build", peak / MIB, 256, " MiB", 0)


def one_file(bench, site):
    """One file of the top layer, to finished raw, qcow2 and descriptor."""
    page = next(iter(sorted((site.folder / "layers/app").rglob("*.css"))))

    def ours():
        page.write_text(page.read_text() + "/* changed */\n")
        return site.build()

    runs = bench.in_turn({"consign": ours, "vmdb2": bench.vmdb2.change_one_file}, warm_up=True)
    yield at_most("one file of the top layer changed", median(runs["consign"]), 1, " s")
    yield ratio("the same, against vmdb2 from its root tarball",
                runs["consign"], runs["vmdb2"], 14)
    peak = max(run.peak for run in runs["consign"])
    yield at_most("peak memory of the builder, one file", peak / MIB, 256, " MiB", 0)


def nothing(bench, site):
    """A second build says that nothing has changed."""
    site.build()
    runs = bench.in_turn({"consign": site.build}, warm_up=True)
    yield at_most("nothing changed", median(runs["consign"]), 0.2, " s")


# Small ones that nothing of the appliance brings, one a round.
EXTRA = ("less", "nano", "bc", "tree", "pv", "ed", "lsof", "jq", "mc", "file")


def one_package_more(bench, site):
    """A layer with one more package on top of the configured ones."""
    more = Site(bench.work / "more", cache=site.cache)
    layer = more.folder / "layers/extra"
    layer.mkdir()
    appliance = more.folder / "appliance.toml"
    before, after = '"app"]', '"app", "extra"]'
    text = appliance.read_text()
    if before not in text:
        fail("appliance.toml does not end its layers with app")
    appliance.write_text(text.replace(before, after))
    names = itertools.cycle(EXTRA)

    def ours():
        (layer / "layer.toml").write_text(f'kind = "packages"\npackages = ["{next(names)}"]\n')
        more.consign("lock")
        # Once for the download; then the package's layer is forgotten.
        more.build()
        records = (more.cache / "consign/layers").iterdir()
        max(records, key=lambda path: path.stat().st_mtime_ns).unlink()
        # With its outputs there, nothing would have to be built.
        shutil.rmtree(more.out)
        return more.build()

    runs = bench.in_turn({"consign": ours}, warm_up=True)
    yield ratio("one more package on top, against our own whole build",
                runs["consign"], bench.whole, 10)
