"""A package mirror on loopback that keeps what passes through it, so that the
network counts for nobody. Its upstreams are the host's own apt sources."""

import hashlib
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common import fail


class Mirror:
    """Serves `/debian` and `/debian-security`; started at once, stopped by `with`."""

    def __init__(self, folder, suite):
        self.folder = folder
        self.suite = suite
        folder.mkdir()
        sources = host_sources()
        main = base_of(sources, suite)
        security = base_of(sources, f"{suite}-security", default=None)
        bases = {"debian": main, "debian-security": security}
        handler = type("Handler", (_Handler,), {"bases": bases, "folder": folder})
        self.has_security = security is not None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.main = f"{self.address}/debian"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def host_sources():
    """Pairs of base address and suite, as apt understands the host's sources."""
    said = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    return sorted({tuple(line.split(maxsplit=1)) for line in said.splitlines() if " " in line})


def base_of(sources, suite, default=""):
    found = [uri for uri, release in sources if release == suite]
    if not found and default is None:
        return None
    if not found:
        fail(f"the host's apt sources have no suite {suite}")
    return found[0].rstrip("/")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bases = {}
    folder = Path()
    lock = threading.Lock()

    def do_GET(self):  # noqa: N802  (http.server's name)
        match = re.fullmatch(r"/(debian|debian-security)/([^?#]+)", self.path)
        base = match and self.bases.get(match[1])
        if not base:
            return self.send_error(404)
        kept = self.folder / hashlib.sha256(self.path.encode()).hexdigest()
        missing = kept.with_suffix(".404")
        with self.lock:
            if missing.exists():
                return self.send_error(404)
            if not kept.exists():
                try:
                    with urllib.request.urlopen(f"{base}/{match[2]}") as answer:
                        with open(kept.with_suffix(".part"), "wb") as file:
                            shutil.copyfileobj(answer, file)
                except urllib.error.HTTPError:
                    missing.touch()
                    return self.send_error(404)
                kept.with_suffix(".part").rename(kept)
        with open(kept, "rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(kept.stat().st_size))
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, 1 << 20)

    def log_message(self, *_):
        pass
