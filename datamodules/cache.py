"""The node's cache of remote shards: each is fetched whole, once, by whichever process needs it first.

WebDataset names cached files by the last part of the address, so that x/part_8.tar and y/part_8.tar are taken for one
file; here the name is a hash of the whole address and the size.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from datamodules.shardindex import ShardError
from datamodules.tarscan import scan_file

ATTEMPTS = 4
TIMEOUT = 60.0
CHUNK = 1 << 20
SHARE = 0.8
"""Share of the disk (what is free plus what the cache holds) that the cache may fill."""


def is_remote(url: str) -> bool:
    """Whether a shard must be fetched before it can be read at random."""
    return url.startswith("pipe:") or "://" in url


class ShardCache:
    """Fetches remote shards into a folder of bounded size, shared by the processes of a node."""

    def __init__(
        self, folder: str | Path | None = None, *, limit_bytes: int | None = None, allow_pipe: bool = False
    ) -> None:
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtok" / "shards"
        self.folder = Path(folder).expanduser() if folder else default
        self.limit_bytes = limit_bytes
        self.allow_pipe = allow_pipe

    def path(self, url: str, size: int | None = None) -> Path:
        """Where a shard is kept."""
        # The size is part of the name: a shard that was replaced at its address is fetched again.
        return self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:40]}-{'' if size is None else size}.tar"

    def fetch(self, url: str, size: int | None = None, sha256: str | None = None) -> Path:
        """The local copy of a remote shard.

        Raises:
            ShardError: it cannot be fetched, is not what the manifest says, or its address is not permitted.
        """
        path = self.path(url, size)
        self.check(url)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock(path):
            if path.exists():
                os.utime(path)  # the cache drops what was used longest ago
                return path
            part = path.with_suffix(".part")
            try:
                self._download(url, part, size, sha256)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        self.trim(keep=path)
        return path

    def index(self, tar: Path) -> Path:
        """The index of a fetched tar, made from its headers the first time."""
        path = tar.with_suffix(".idx")
        with self._lock(tar):
            if not path.exists():
                scan_file(tar).index(tar.stat().st_size).save(path)
        return path

    def check(self, url: str) -> None:
        """Refuse addresses that run commands or that nobody here can read."""
        scheme = url.split(":", 1)[0]
        if scheme == "pipe" and not self.allow_pipe:
            raise ShardError(
                f"{url} would run a shell command. If you trust it, set data.allow_pipe=true "
                "(mmtok shards: --allow-pipe)."
            )
        if scheme not in ("pipe", "http", "https", "file"):
            raise ShardError(f"{url}: no reader for '{scheme}:'. Mount it, use https: or an allowed pipe:.")

    def trim(self, keep: Path) -> None:
        """Drop what was used longest ago until the cache fits; a tar that is open stays readable until it is closed."""
        entries = []
        for tar in self.folder.glob("*.tar"):
            try:
                stat = tar.stat()
            except FileNotFoundError:  # another process trims too
                continue
            entries.append((stat.st_mtime, stat.st_size, tar))
        held = sum(size for _, size, _ in entries)
        limit = self.limit_bytes
        if limit is None:
            limit = int(SHARE * (shutil.disk_usage(self.folder).free + held))
        for _, size, tar in sorted(entries):
            if held <= limit:
                return
            if tar != keep:
                tar.unlink(missing_ok=True)
                tar.with_suffix(".idx").unlink(missing_ok=True)
                held -= size

    @contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        with path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _download(self, url: str, part: Path, size: int | None, sha256: str | None) -> None:
        for attempt in range(ATTEMPTS):
            try:
                got, digest = self._copy(url, part)
            except (urllib.error.HTTPError, ConnectionError, TimeoutError, urllib.error.URLError) as error:
                gone = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
                if gone or attempt == ATTEMPTS - 1:
                    raise ShardError(f"{url} cannot be fetched: {error}") from error
                time.sleep(2**attempt)
                continue
            if (size is None or got == size) and (sha256 is None or digest == sha256):
                return
        want = f"{size} bytes" if size is not None and got != size else f"sha256 {sha256}"
        raise ShardError(f"{url} came as {got} bytes, sha256 {digest}; the manifest says {want}. Index it again.")

    def _copy(self, url: str, part: Path) -> tuple[int, str]:
        digest, got = hashlib.sha256(), 0
        with open_stream(url) as source, part.open("wb") as file:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                got += len(chunk)
                try:
                    file.write(chunk)
                except OSError as error:
                    raise ShardError(
                        f"{self.folder} cannot take {url}: {error.strerror}. Free space or set data.cache_dir."
                    ) from error
        return got, digest.hexdigest()


@contextmanager
def open_stream(url: str) -> Iterator[IO[bytes]]:
    """The content of a remote shard from its beginning; `ShardCache.check` has permitted the address."""
    if url.startswith("pipe:"):
        with subprocess.Popen(url.removeprefix("pipe:"), shell=True, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield process.stdout
        if process.returncode:
            raise ShardError(f"{url} ended with status {process.returncode}")
    elif url.startswith("file:"):
        with open(unquote(urlsplit(url).path), "rb") as file:
            yield file
    else:
        request = urllib.request.Request(url, headers={"User-Agent": "mmtok"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            yield response
