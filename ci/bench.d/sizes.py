"""What a customer downloads and a guest reads before its root."""

from common import AGENT, at_most


def measure(bench):
    out = bench.site.out
    qcow2 = next(out.glob("*.qcow2"))
    yield at_most("qcow2 with the generic kernel", qcow2.stat().st_size / 1e6, 180, " MB", 1)
    yield at_most("initramfs", (out / "initrd").stat().st_size / 1e6, 4, " MB")
    yield at_most("agent", AGENT.stat().st_size / 1e6, 2.5, " MB")
