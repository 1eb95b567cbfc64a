"""apt's own index of packages, read without root: the lists of this machine, else a copy in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datamodules.build.deb import explain, private_index, run_apt

HELPER = Path("/usr/lib/apt/apt-helper")
"""Reads lists however they are compressed."""
ENGLISH = ["-o", "Acquire::Languages=en"]


class List(NamedTuple):
    """One file of the index."""

    path: Path
    created_by: str
    """"Packages" or "Translations"."""
    release: str
    """Release and version, as its archive names them."""
    architecture: str


def find_lists(cache: Path) -> list[List]:
    """The lists of packages and of their English descriptions.

    Many machines leave the descriptions out; then both are fetched into the cache folder, once.

    Raises:
        ValueError: there is no apt, or the lists can neither be read nor fetched; says what to do.
    """
    if not (shutil.which("apt-get") and shutil.which("apt-config") and HELPER.exists()):
        raise ValueError("apt-get is not on this machine, and debian:packages is its index. Use a Debian or Ubuntu.")
    cache.mkdir(parents=True, exist_ok=True)
    if complete(found := _targets(ENGLISH, cache)):
        return found
    private = [*private_index(cache), *ENGLISH]
    if complete(found := _targets(private, cache)):
        return found
    update = run_apt([*private, "update"], cache)
    if not complete(found := _targets(private, cache)):
        raise ValueError(
            f"apt has no list of packages with descriptions, and none could be fetched: {explain(update.stderr)} "
            "Is this machine online? See /etc/apt/sources.list.d; then: apt-get -o Acquire::Languages=en update"
        )
    return found


def complete(lists: list[List]) -> bool:
    """Whether packages and their descriptions are both there."""
    return {one.created_by for one in lists} == {"Packages", "Translations"}


def _targets(options: list[str], folder: Path) -> list[List]:
    form = "$(FILENAME)\t$(CREATED_BY)\t$(ORIGIN) $(CODENAME) $(VERSION)\t$(ARCHITECTURE)\t$(LANGUAGE)"
    told = run_apt([*options, "indextargets", "--format", form], folder)
    lists = []
    for line in told.stdout.splitlines():
        name, created_by, release, architecture, language = (line + "\t\t\t\t").split("\t")[:5]
        wanted = created_by == "Packages" or (created_by == "Translations" and language == "en")
        if wanted and Path(name).is_file():
            lists.append(List(Path(name), created_by, release, architecture))
    return lists


def native_architecture() -> str:
    """As apt calls it."""
    done = subprocess.run(["apt-config", "dump", "APT::Architecture"], capture_output=True, text=True, check=False)
    return done.stdout.partition('"')[2].partition('"')[0] or "amd64"


def read_list(one: List) -> bytes:
    """A list in plain.

    Raises:
        ValueError: it is damaged.
    """
    done = subprocess.run([str(HELPER), "cat-file", str(one.path)], capture_output=True, check=False)
    if done.returncode or not done.stdout.strip():
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it is empty"]
        raise ValueError(f"{one.path} cannot be read ({said[-1]}). Fetch it again: apt-get update")
    return done.stdout


def stanzas(content: bytes) -> Iterator[dict[str, str]]:
    """Records of a control file: field -> value, further lines kept as they are.

    Bytes that are no UTF-8 survive, for whoever encodes them again to find.
    """
    for block in content.decode("utf-8", "surrogateescape").split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in block.split("\n"):
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')}\n{line}"
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def digest(contents: list[bytes]) -> str:
    """One sha256 of several lists."""
    whole = hashlib.sha256()
    for one in contents:
        whole.update(hashlib.sha256(one).digest())
    return whole.hexdigest()
