"""The node's cache of remote shards: each is fetched whole, once, by whichever process needs it first.

WebDataset names cached files by the last part of the address, so that x/part_8.tar and y/part_8.tar are taken for one
file, fetches a shard in every worker, and is not bounded; here the name is a hash of the whole address, the size and
the hash of the content, one process fetches while the others wait, and what was used longest ago goes first.

Every promise to another process is a lock of the kernel on an open file, which ends with its process however that ends:
nobody fetches a shard for ever, and nobody keeps one from being dropped for ever.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datamodules.figures import Figures
from datamodules.remote import UnreachableError, check, parts, read, shown
from datamodules.shardindex import ShardError, ShardIndex, write_atomically
from datamodules.tarscan import scan_file

SHARE = 0.8
"""Share of the disk (what is free plus what the cache holds) that the cache may fill."""
FIGURES = ("cache_hits", "cache_misses", "cache_evictions", "cache_overfull", "fetch_seconds", "fetched_mb")
"""What a cache counts. Overfull: shards fetched beyond its limit, all others being in use. Seconds are also those of
threads that fetch ahead, so they may exceed the time that passed."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CacheError(ValueError):
    """The cache's folder cannot be used. It stops a run: no sample is at fault."""


class ShardCache:
    """Fetches remote shards into a folder of bounded size, shared by the processes of a node."""

    def __init__(
        self, folder: str | Path | None = None, *, limit_bytes: int | None = None, allow_pipe: bool = False
    ) -> None:
        """Name a cache; its folder is made when something is fetched.

        Args:
            folder: on a disk of this node; by default in the user's cache folder.
            limit_bytes: most bytes of tars it holds; None for SHARE of the disk.
            allow_pipe: permit `pipe:` addresses.
        """
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtok" / "shards"
        self.folder = Path(folder).expanduser() if folder else default
        self.limit_bytes = limit_bytes
        self.allow_pipe = allow_pipe
        self.figures = Figures()

    def path(self, url: str, size: int | None = None, sha256: str | None = None) -> Path:
        """Where a shard is kept."""
        # Size and hash are part of the name: a shard that was replaced at its address is fetched again.
        name = hashlib.sha256(f"{url}\n{sha256 or ''}".encode()).hexdigest()[:40]
        return self.folder / f"{name}-{'' if size is None else size}.tar"

    def lease(self, url: str, size: int | None = None, sha256: str | None = None) -> tuple[Path, int]:
        """A shard's path and an open file of it; it is not dropped from the cache until that file is closed.

        Raises:
            ShardError: it does not exist, is not what the manifest says, or its address is not permitted.
            UnreachableError: it does not come.
            CacheError: the folder cannot take it.
        """
        self.check(url)
        path = self.path(url, size, sha256)
        descriptor = self._hold(path, size)
        if descriptor is None:
            with self._lock(path):
                descriptor = self._hold(path, size)
                if descriptor is None:
                    self._fetch(url, path, size, sha256)
                    descriptor = self._hold(path, None)
                    assert descriptor is not None, "nobody drops a shard while its lock is held"
                    return path, descriptor
        self.figures.add(cache_hits=1)
        return path, descriptor

    def fetch(self, url: str, size: int | None = None, sha256: str | None = None) -> Path:
        """The local copy of a remote shard, which may be dropped at any time later; otherwise as `lease`."""
        path, descriptor = self.lease(url, size, sha256)
        os.close(descriptor)
        return path

    def prefetch(self, url: str, size: int | None = None, sha256: str | None = None) -> None:
        """Fetch a shard that will be needed, unless it is here or on its way."""
        path = self.path(url, size, sha256)
        if not path.exists():
            with self._lock(path, wait=False) as mine:
                if mine and not path.exists():
                    self._fetch(url, path, size, sha256)

    def index(self, tar: Path, url: str | None = None) -> Path:
        """The index of a tar in the cache: fetched once from its own address, else made from the tar's headers."""
        path = tar.with_suffix(".idx")
        if path.exists():
            return path
        with self._lock(tar):
            if not path.exists():
                if url is not None and self._fetch_index(url, path, tar.stat().st_size):
                    return path
                scan_file(tar).index(tar.stat().st_size).save(path)
        return path

    def check(self, url: str) -> None:
        """Refuse addresses that run commands or that nobody here can read."""
        check(url, self.allow_pipe)

    def make_room(self, need: int, keep: Path | None = None) -> bool:
        """Drop what was used longest ago, and nobody holds, until `need` bytes for `keep` fit; whether they do."""
        entries, there, held = [], 0, 0
        for path in [*self.folder.glob("*.tar"), *self.folder.glob("[!.]*.part")]:
            with suppress(FileNotFoundError):  # another process makes room too
                stat = path.stat()
                there += stat.st_size
                if path.suffix == ".tar":
                    entries.append((stat.st_mtime, stat.st_size, path))
                if path != keep:  # what others fetch counts as it will be, by the size in its name
                    promised = path.stem.rpartition("-")[2] if path.suffix == ".part" else ""
                    held += max(stat.st_size, int(promised or 0))
        limit = self.limit_bytes
        if limit is None:
            limit = int(SHARE * (shutil.disk_usage(self.folder).free + there))
        if need > limit:
            raise CacheError(
                f"{self.folder} may hold {limit:,} bytes, and one shard has {need:,}. Raise data.cache_gb, free space, "
                "or set data.cache_dir to a larger disk."
            )
        for _, size, tar in sorted(entries):
            if held + need <= limit:
                return True
            if tar != keep and self._drop(tar):
                held -= size
        if held + need <= limit:
            return True
        self.figures.add(cache_overfull=1)
        return False

    def _drop(self, tar: Path) -> bool:
        """Remove a tar unless somebody reads or fetches it."""
        with self._lock(tar, wait=False) as mine:
            if not mine:
                return False
            try:
                # For writing: NFS refuses an exclusive lock otherwise, and nothing would ever be dropped.
                descriptor = os.open(tar, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return True
            except OSError:  # another user's
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            else:
                for suffix in (".tar", ".idx", ".part", ".lock"):
                    tar.with_suffix(suffix).unlink(missing_ok=True)
            finally:
                os.close(descriptor)
            self.figures.add(cache_evictions=1)
        return True

    def _hold(self, path: Path, size: int | None) -> int | None:
        """Open a tar of the cache and keep it there; None where there is none, or not all of it."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unusable(error) from error
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        stat = os.fstat(descriptor)
        # No link is left where it was dropped after it was opened; another size, where a disk lost what it was given.
        if not stat.st_nlink or size not in (None, stat.st_size):
            os.close(descriptor)
            return None
        with suppress(OSError):  # a folder that may only be read
            os.utime(descriptor)
        return descriptor

    @contextmanager
    def _lock(self, path: Path, wait: bool = True) -> Iterator[bool]:
        """Be the one process and thread that works on a tar; gives False where another is, and `wait` is not set."""
        name = path.with_suffix(".lock")
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = name.open("w")
            except OSError as error:
                raise self._unusable(error) from error
            with file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                    return
                # Whoever drops a tar removes its lock too: what was opened just before is nobody's lock any more.
                try:
                    stands = os.fstat(file.fileno()).st_ino == name.stat().st_ino
                except FileNotFoundError:
                    continue
                if stands:
                    yield True
                    return

    def _fetch(self, url: str, path: Path, size: int | None, sha256: str | None) -> None:
        """Put a tar into the cache, whole or not at all. The caller has its lock."""
        began = time.perf_counter()
        part = path.with_suffix(".part")
        self._sweep()
        try:
            part.touch()  # before room is made: of two that come together, each sees the other's
            if size is not None:
                self.make_room(size, keep=part)
            got = self._verified(url, part, size, sha256)
            if size is None:
                self.make_room(got, keep=part)
            part.replace(path)
        except OSError as error:
            if isinstance(error, ShardError):
                raise
            raise self._unusable(error) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        self.figures.add(cache_misses=1, fetched_mb=got / 1e6, fetch_seconds=time.perf_counter() - began)

    def _sweep(self) -> None:
        """Remove what killed processes left half fetched."""
        for part in self.folder.glob("[!.]*.part"):  # an index on its way begins with a dot
            with self._lock(part, wait=False) as mine:
                if mine:
                    part.unlink(missing_ok=True)

    def _verified(self, url: str, part: Path, size: int | None, sha256: str | None) -> int:
        """Download; what differs from the manifest is fetched once more, for it may have been damaged on its way."""
        for _ in range(2):
            got, digest = self._download(url, part, size)
            if size in (None, got) and sha256 in (None, digest):
                return got
        came = f"{got:,} bytes" if size is None or got <= size else f"more than {size:,} bytes"
        want = f"{size:,} bytes" if size not in (None, got) else f"sha256 {sha256}"
        raise ShardError(
            f"{shown(url)} came twice as {came}, sha256 {digest}; the manifest says {want}. "
            "Bring the shard back, or index the set again: mmtok shards index."
        )

    def _download(self, url: str, part: Path, size: int | None = None) -> tuple[int, str]:
        """Write a file from its address; gives its size and sha256."""
        digest, got = hashlib.sha256(), 0
        with part.open("wb", buffering=0) as file:
            for at, data in parts(url, size):
                if at == 0:
                    digest, got = hashlib.sha256(), 0
                self._write(file.fileno(), at, data)
                digest.update(data)
                got = at + len(data)
            os.truncate(file.fileno(), got)
            os.fsync(file.fileno())  # before the rename: a node that loses power must not find half a shard
        return got, digest.hexdigest()

    def _write(self, descriptor: int, at: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                done = os.pwrite(descriptor, view, at)
            except OSError as error:
                # Others fill the disk too. What nobody reads is given up before the run is.
                if error.errno not in _FULL or not self._drop_oldest():
                    raise
                continue
            at, view = at + done, view[done:]

    def _drop_oldest(self) -> bool:
        found = []
        for tar in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):
                found.append((tar.stat().st_mtime, tar))
        return any(self._drop(tar) for _, tar in sorted(found))

    def _fetch_index(self, url: str, path: Path, tar_bytes: int) -> bool:
        try:
            write_atomically(path, read(url, self.allow_pipe))
            if ShardIndex.open(path).tar_bytes == tar_bytes:
                return True
        except (ShardError, UnreachableError):
            pass  # the tar tells the same
        path.unlink(missing_ok=True)
        return False

    def _unusable(self, error: OSError) -> CacheError:
        what = "is full" if error.errno in _FULL else "cannot be written"
        return CacheError(
            f"the cache of remote shards, {self.folder}, {what} ({error.strerror or error}). "
            "Free space, or set data.cache_dir (mmtok shards: --cache-dir) to another disk."
        )
