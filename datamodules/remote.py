"""Files at addresses: s3:, http(s):, gs:, hf:, file: through fsspec, pipe: by a shell; read in parts, with patience.

fsspec's own whole-file reads start again at byte 0 when a connection is cut, call an overloaded HTTP server "file not
found", and take a body that a server cut short by its own header for a whole one. So a file is read here in ranges,
each tried again by itself, and what has come is compared with what the manifest says.

Credentials and endpoints come from the environment, as the libraries behind fsspec take them (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, FSSPEC_S3_ANON, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN ...).
"""

from __future__ import annotations

import os
import random
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from datamodules.shardindex import ShardError

NEEDS = {
    "s3": "s3fs",
    "http": "aiohttp",
    "https": "aiohttp",
    "gs": "gcsfs",
    "hf": "huggingface_hub",
    "file": "fsspec",
}
"""Schemes that are read, and the package that each needs."""
ATTEMPTS = 8
"""Times a range is asked for, over about two minutes; what comes in between starts the count again."""
TELL = 4
"""The attempt from which on a person is told why nothing moves: after five seconds or so."""
TIMEOUT = 60.0
"""Seconds without a byte after which a connection is given up."""
WHOLE = 300.0
"""Seconds for one range of PART bytes, so that a server which sends a byte a second is given up too."""
LONGEST_WAIT = 120.0
"""Seconds between two attempts at most, whatever a server asks for."""
# No multiple of a tar's 512 bytes: a tar that ends where a range ends would need one more request to be known as whole.
PART = (8 << 20) + 1
SMALLEST = (1 << 17) + 1
"""Bytes below which a range is not lowered, however often connections are cut."""

T = TypeVar("T")


class UnreachableError(ValueError):
    """A file that should exist does not come. It stops a run, which would train on other samples without it."""


class MissingError(ShardError, FileNotFoundError):
    """There is no such file."""


def is_remote(url: str) -> bool:
    """Whether a shard must be fetched before it can be read at random."""
    return url.startswith("pipe:") or "://" in url


def join(home: str, name: str) -> str:
    """The address of a file beside a manifest; a query (a signature, say) of the folder's address is kept."""
    if "?" not in home:
        return f"{home.rstrip('/')}/{name}"
    found = urlsplit(home)
    return urlunsplit(found._replace(path=f"{found.path.rstrip('/')}/{name}"))


def beside(home: str, name: str) -> str:
    """The folder or address of a neighbour."""
    if not is_remote(home):
        return str(Path(home).parent / name)
    found = urlsplit(home)
    return urlunsplit(found._replace(path=f"{found.path.rstrip('/').rpartition('/')[0]}/{name}"))


def shown(url: str) -> str:
    """A path or an address as it may stand in a log: without passwords and signatures."""
    if "://" not in url or url.startswith("pipe:"):
        return url
    found = urlsplit(url)
    found = found._replace(netloc=found.netloc.rpartition("@")[2], query="..." if found.query else "")
    return urlunsplit(found)


def check(url: str, allow_pipe: bool = False) -> None:
    """Refuse addresses that run commands or that nobody here can read.

    Raises:
        ShardError: says what would be permitted.
    """
    scheme = url.split(":", 1)[0]
    if scheme == "pipe" and not allow_pipe:
        raise ShardError(
            f"{url} would run a shell command. If you trust it, set data.allow_pipe=true (mmtok shards: --allow-pipe)."
        )
    if scheme not in NEEDS and scheme != "pipe":
        raise ShardError(
            f"{shown(url)}: no reader for '{scheme}:'. Known: {', '.join(NEEDS)}. Mount it, or use an allowed pipe:."
        )


def parts(url: str, size: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The content of a file in order, as (offset, bytes); offset 0 again where a server could only send it all.

    Args:
        url: where; `check` has permitted it.
        size: bytes it should have, if known. One more is asked for, so that a longer file is noticed.

    Raises:
        ShardError: it is not there, or may not be read.
        UnreachableError: it did not come, whatever was tried.
    """
    if url.startswith("pipe:"):
        yield from _piped(url)
        return
    at, most = 0, PART

    def ask() -> tuple[int, bytes]:
        nonlocal most
        wanted = most if size is None else min(most, size - at + 1)
        try:
            return wanted, _range(url, at, wanted)
        except Exception as error:
            if _status(error) is None:
                # What a connection had brought is lost with it: where each is cut, only smaller ranges ever arrive.
                most = max(min(SMALLEST, most), most // 4 | 1)
            raise

    while size is None or at <= size:
        wanted, data = patiently(url, ask)
        if len(data) > wanted:
            yield 0, data  # the server ignores ranges
            return
        if data:
            yield at, data
        at += len(data)
        if len(data) < wanted:
            return  # the end, or what a server says is one: whoever knows the size will see


def read(url: str, allow_pipe: bool = False) -> bytes:
    """A small file, whole: a manifest or an index.

    Raises:
        FileNotFoundError: it is not there.
        ShardError: it may not be read.
        UnreachableError: it did not come.
    """
    check(url, allow_pipe)
    content = bytearray()
    for at, data in parts(url):
        content[at:] = data
    return bytes(content)


def patiently(url: str, action: Callable[[], T]) -> T:
    """Try something again while it may be a passing failure, waiting longer each time.

    Raises:
        MissingError: the file is not there.
        ShardError: it may not be read, or a package is missing.
        UnreachableError: it still failed at the last attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Exception as error:  # each library behind fsspec raises its own
            lasting = _lasting(url, error)
            if lasting is not None:
                raise lasting from error
            if attempt == ATTEMPTS:
                raise UnreachableError(
                    f"{shown(url)} cannot be fetched: {_words(error)} ({ATTEMPTS} attempts). To go on would be "
                    "to train on other samples. Once the address answers, the same command continues."
                ) from error
            if attempt == TELL:
                warnings.warn(f"{shown(url)} does not come ({_words(error)}). It is asked for again.", stacklevel=2)
            sleep(_wait(attempt, error))
    raise AssertionError("the last attempt returns or raises")


def _lasting(url: str, error: Exception) -> ShardError | None:
    """What to raise for a failure that another attempt would only repeat."""
    if isinstance(error, ShardError):
        return error
    scheme, status = url.split(":", 1)[0], _status(error)
    if isinstance(error, ImportError):
        package = NEEDS[scheme]
        how = "pip install 'mmtok[remote]'" if scheme in ("s3", "http", "https") else f"pip install {package}"
        return ShardError(f"{shown(url)}: '{scheme}:' needs the Python package '{package}'. Install it: {how}.")
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return MissingError(f"{shown(url)} does not exist")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        where = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket"}
        return ShardError(
            f"{shown(url)} may not be read ({_words(error)}). Credentials come from the environment"
            f"{': ' + where[scheme] if scheme in where else ''}."
        )
    if isinstance(error, IsADirectoryError | NotADirectoryError) or (
        status is not None and 400 <= status < 500 and status not in (408, 425, 429)
    ):
        return ShardError(f"{shown(url)} cannot be fetched: {_words(error)}")
    return None


def _wait(attempt: int, error: Exception) -> float:
    """Seconds to the next attempt: 1, 2, 4 ... scattered, so that a thousand workers do not come back together."""
    told = 0.0
    headers = getattr(error, "headers", None)
    if headers is not None and str(headers.get("Retry-After", "")).isdigit():
        told = float(headers["Retry-After"])
    # From the system's own generator: the run's draws must not depend on the network.
    scattered = 2.0 ** (attempt - 1) * random.SystemRandom().uniform(0.5, 1.0)
    return min(LONGEST_WAIT, max(told, scattered))


def _status(error: Exception) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _words(error: Exception) -> str:
    status = _status(error)
    if status is not None:
        return f"status {status} {getattr(error, 'message', '')}".strip()
    # The URL is named already, with its signature left out.
    return (str(error).split("\n")[0].split("://")[0] or type(error).__name__)[:200]


def _range(url: str, at: int, count: int) -> bytes:
    """`count` bytes from `at`: fewer at the end of the file, all of it from a server that ignores ranges."""
    scheme = url.split(":", 1)[0]
    if scheme == "file":
        descriptor = os.open(unquote(urlsplit(url).path), os.O_RDONLY)
        try:
            return os.pread(descriptor, count, at)
        finally:
            os.close(descriptor)
    try:
        return _filesystem(scheme, "%" in url).cat_file(url, start=at, end=at + count)
    except Exception as error:
        if at and _status(error) == 416:  # the range begins where the file ends
            return b""
        raise


def _filesystem(scheme: str, quoted: bool) -> Any:
    """fsspec's reader; it keeps one for each process and set of options."""
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("http", "https"):
        import aiohttp

        options["client_kwargs"] = {
            "timeout": aiohttp.ClientTimeout(total=WHOLE, connect=TIMEOUT, sock_read=TIMEOUT),
            "trust_env": True,  # proxies
            "headers": {"User-Agent": "mmtok", "Accept-Encoding": "identity"},
        }
        options["encoded"] = quoted  # a signature must reach the server letter by letter
    elif scheme == "s3":
        # No list of a bucket is kept: a file may appear after it was looked for.
        options["use_listings_cache"] = False
        options["config_kwargs"] = {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT}
    return fsspec.filesystem(scheme, **options)


def _piped(url: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    with subprocess.Popen(url.removeprefix("pipe:"), shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(1 << 20):
            yield at, data
            at += len(data)
    if process.returncode:
        raise ShardError(f"{url} ended with status {process.returncode}")
