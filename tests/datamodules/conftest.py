"""Servers on loopback that hold shard sets: one of HTTP that misbehaves as told, one of S3."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datamodules import remote


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        path = self.path.split("?")[0]
        server.requests.append((path, self.headers.get("Range")))
        fault = server.faults[path].pop(0) if server.faults[path] else ""
        content = server.files.get(path)
        if content is None or fault == "404":
            return self.answer(404, b"")
        if fault.isdigit():
            return self.answer(int(fault), b"", {"Retry-After": "0"} if fault == "429" else {})
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if server.ranges and found:
            first, last = map(int, found.groups())
            if first >= len(content):
                return self.answer(416, b"")
            return self.answer(206, content[first : last + 1], fault=fault)
        return self.answer(200, content, fault=fault)

    def answer(self, status, body, headers=(), fault=""):
        self.send_response(status)
        length = len(body)
        if fault == "says more":
            length += 100
        if fault == "says less":
            length -= 100
        if fault == "damaged":
            body = body[:50] + b"?" + body[51:]
        self.send_header("Content-Length", str(length))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "cut" or (self.server.limit and length > self.server.limit):
            self.wfile.write(body[: self.server.limit or length // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if fault == "hangs":
            self.wfile.write(body[:10])
            self.wfile.flush()
            time.sleep(3)
            self.close_connection = True
            return
        step = max(1, length // 20) if fault == "slow" else max(length, 1)
        for at in range(0, min(length, len(body)), step):
            self.wfile.write(body[: min(length, len(body))][at : at + step])
            if fault == "slow":
                time.sleep(0.01)
        if fault == "says more":
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    """An HTTP server: `files` {path: bytes}, `faults` {path: [what goes wrong with the next request, ...]}.

    `limit`: bytes of an answer after which every connection is cut.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.files, server.requests, server.ranges, server.limit = {}, [], True, None
    server.faults = defaultdict(list)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.serve = lambda folder, name="/set": server.files.update(
        {f"{name}/{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """The seconds that retries of this thread asked to sleep; nobody sleeps."""
    asked = []

    def sleep(seconds):
        # What an earlier test's prefetching thread still asks for is not this test's.
        if threading.current_thread() is threading.main_thread():
            asked.append(seconds)

    monkeypatch.setattr(remote, "sleep", sleep)
    return asked


@pytest.fixture(scope="session")
def s3():
    """moto's server of S3; gives a client of it, with an empty bucket "data"."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        # As a user would: fsspec's libraries read the environment.
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="data")
        yield client
    server.stop()
