"""Debian packages as archives: fetched by apt without root, read where they lie; nothing is installed or unpacked."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import IO, Any

OFFLINE = "Without it, use the pictures that come along: mmtok shards build fixture -o data/fixture."
MAX_BYTES = 2 << 30
"""Content taken of one package at most; it is held in memory."""
TIMEOUT = 1800
"""Seconds for one download."""


class Deb:
    """A .deb file: an `ar` archive of two tars, one of control files and one of data."""

    def __init__(self, path: Path) -> None:
        """Reads the table and the control file.

        Raises:
            ValueError: it is no Debian package, or damaged.
        """
        self.path = path
        self.parts = read_ar(path)
        self.control: dict[str, str] = {}
        for name, data in self._stream("control.tar", lambda name: name == "control"):
            self.control[name] = data.decode(errors="replace")
        if "control" not in self.control:
            raise ValueError(f"{path} is a package without a control file. Delete it and fetch it again.")
        self.fields = dict(HeaderParser().parsestr(self.control["control"]).items())

    @property
    def package(self) -> str:
        """Name of the package."""
        return self.fields.get("Package", self.path.name)

    @property
    def version(self) -> str:
        """Version of the package."""
        return self.fields.get("Version", "unknown")

    def files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """Path (without a leading ./) and content of the wanted files, as the data tar streams by.

        Raises:
            ValueError: the tar is damaged, or holds more than `MAX_BYTES` of them.
        """
        return self._stream("data.tar", wanted)

    def _stream(self, prefix: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        part = next((name for name in self.parts if name.startswith(prefix)), None)
        if part is None:
            raise ValueError(f"{self.path} has no {prefix}: it is no Debian package.")
        total = 0
        try:
            with self.path.open("rb") as file:
                window = io.BufferedReader(_Window(file, *self.parts[part]))
                with _decompress(window, part) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
                    for member in tar:
                        name = member.name.removeprefix("./")
                        if not member.isfile() or not wanted(name):
                            continue
                        total += member.size
                        if total > MAX_BYTES:
                            raise ValueError(f"{self.path}: more than {MAX_BYTES >> 30} GiB of content is wanted.")
                        content = tar.extractfile(member)
                        assert content is not None, "a plain file has content"
                        yield name, content.read()
        except (tarfile.TarError, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{self.path} is damaged ({error}). Delete it and fetch it again.") from error


def read_ar(path: Path) -> dict[str, tuple[int, int]]:
    """Members of an `ar` archive: name -> (offset, size).

    Raises:
        ValueError: it is none, or cut short.
    """
    parts: dict[str, tuple[int, int]] = {}
    total = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise ValueError(f"{path} is no Debian package: it does not start as an ar archive.")
        while len(header := file.read(60)) == 60:
            name, size = header[:16].decode("latin1").strip().rstrip("/"), header[48:58].strip()
            if not size.isdigit() or (end := file.tell() + int(size)) > total:
                raise ValueError(f"{path} is cut short or damaged. Delete it and fetch it again.")
            parts[name] = (file.tell(), int(size))
            file.seek(end + end % 2)  # members start on even bytes
    return parts


class _Window(io.RawIOBase):
    """A piece of a file as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.file, self.left = file, size
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(min(len(buffer), self.left))
        self.left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def _decompress(file: IO[bytes], name: str) -> Any:
    suffix = name.rpartition(".")[2]
    if suffix == "xz":
        return lzma.open(file)
    if suffix == "gz":
        return gzip.open(file)
    if suffix == "tar":
        return file
    if suffix == "zst":
        return _open_zstd(file)
    raise ValueError(f"{name} is compressed in a way that is not known here. Known: xz, zst, gz, none.")


def _open_zstd(file: IO[bytes]) -> Any:
    try:
        from compression import zstd  # since Python 3.14

        return zstd.open(file)
    except ImportError:
        pass
    try:
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(file)
    except ImportError:
        raise ValueError("This package is compressed with zstd. Install its reader: pip install zstandard") from None


def fetch(package: str, cache: Path) -> Path:
    """The .deb of a package, from the cache folder or by apt.

    Raises:
        ValueError: there is no apt, no network, or no such package; says what to do instead.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if known := sorted(cache.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime):
        return known[-1]
    if shutil.which("apt-get") is None:
        raise ValueError(f"apt-get is not on this machine, so '{package}' cannot be fetched. {OFFLINE}")
    # apt resumes in and checks against the signed index; the file appears under its name only once it is whole.
    partial = cache / "partial"
    partial.mkdir(exist_ok=True)
    first = run_apt(["download", package], partial)
    if first.returncode:
        # No index yet, or a stale one. An index of our own needs no root.
        private = private_index(cache)
        update = run_apt([*private, "update"], partial)
        second = run_apt([*private, "download", package], partial)
        if second.returncode:
            raise ValueError(_explain(package, update.stderr + second.stderr))
    found = next(partial.glob(f"{package}_*.deb"), None)
    if found is None:
        raise ValueError(f"apt-get said it fetched '{package}', but left no file in {partial}. {OFFLINE}")
    return found.replace(cache / found.name.replace("%3a", "-"))


def private_index(cache: Path) -> list[str]:
    """Options that give apt an index of its own in the cache folder, which needs no root."""
    lists, archives = cache / "apt" / "lists", cache / "apt" / "archives"
    for folder in (lists, archives):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache / 'apt'}", "-o", "Debug::NoLocking=1"]


def run_apt(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """apt-get in a folder, in English and with limits."""
    command = ["apt-get", "-q", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20", *arguments]
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, timeout=TIMEOUT, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"nothing for {TIMEOUT} s")


def explain(said: str) -> str:
    """The last error of what apt-get said."""
    errors = [line.removeprefix("E: ") for line in said.splitlines() if line.startswith(("E: ", "Err", "nothing"))]
    return errors[-1] if errors else "no reason given"


def _explain(package: str, said: str) -> str:
    reason = explain(said)
    if "Unable to locate package" in said and "Failed to fetch" not in said and "resolve" not in said:
        return f"there is no Debian package '{package}' in the sources of this machine's apt. {OFFLINE}"
    return f"'{package}' could not be fetched by apt-get: {reason} Is this machine online? {OFFLINE}"
