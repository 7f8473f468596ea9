"""No test of data sees the user's folder or a network; small stand-ins for MNIST, CIFAR-10 and a server."""

import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
from helpers.data import idx, records

from thinned.lab.data import cifar10, download
from thinned.lab.data import mnist as mnist_module


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No folder of the user, an empty cache, no way to a network."""
    monkeypatch.delenv("THINNED_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(mnist_module, "URLS", ("http://127.0.0.1:9/",))
    monkeypatch.setattr(cifar10, "URLS", ("http://127.0.0.1:9/cifar-10-binary.tar.gz",))


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder with a small MNIST, whose checksums are taken for the canonical ones."""
    rng = np.random.default_rng(0)
    folder, arrays = tmp_path / "data" / "mnist", {}
    folder.mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 6)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 4, 3))
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(n) % 10
    table = {}
    for name in mnist_module.FILES:
        whole = idx(arrays[name])
        packed = gzip.compress(whole, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        sums = hashlib.sha256(whole).hexdigest(), hashlib.sha256(packed).hexdigest()
        table[name] = (arrays[name].ndim, *sums)
    monkeypatch.setattr(mnist_module, "FILES", table)
    return folder


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder with a small CIFAR-10."""
    monkeypatch.setattr(cifar10, "IMAGES", 20)
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i, name in enumerate(cifar10.FILES):
        records(i, 20).tofile(folder / name)
    return folder


class Server(http.server.ThreadingHTTPServer):
    """A server on this machine, and what its handler shall do."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cuts, self.ranges = {}, [], 0, True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a dictionary, knows Range, and can cut a connection."""

    server: "Server"

    def do_GET(self) -> None:
        server = self.server
        content, asked = server.files.get(self.path), self.headers.get("Range")
        server.asked.append((self.path, asked))
        if content is None:
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content)
        if server.cuts:
            end = start + (end - start) // 2
            server.cuts -= 1
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    pytest.importorskip("pooch")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
