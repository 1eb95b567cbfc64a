"""The Debian package index as a catalogue: items with a text and a class, queries, and lists of items.

One version of each package and one architecture, so that an item is a package and not a build of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datamodules.build.apt import digest, find_lists, native_architecture, read_list, stanzas
from datamodules.build.source import Entry, Source, fraction_of
from datamodules.build.tables import to_csv

LICENCE = "descriptions under the licences of their packages"


@dataclass(frozen=True)
class Package:
    """What is taken of a record."""

    name: str
    section: str
    synopsis: str
    """One line; asks for the package in retrieval, and is no part of its text."""
    text: str
    """The long description."""
    needs: tuple[str, ...]
    """Packages it depends on, in the order of the record; of alternatives, the first."""


class PackageIndex(Source):
    """Every package that has a long description of its own."""

    def __init__(self, cache: Path) -> None:
        """Finds or fetches apt's lists.

        Raises:
            ValueError: see `find_lists`.
        """
        found = find_lists(cache)
        architecture = native_architecture()
        lists = [one for one in found if one.created_by != "Packages" or one.architecture in ("all", architecture)]
        contents = [read_list(one) for one in lists]
        of = list(zip(lists, contents, strict=True))
        packages = read_packages(
            [content for one, content in of if one.created_by == "Packages"],
            [content for one, content in of if one.created_by == "Translations"],
        )
        if not packages:
            raise ValueError("apt's lists name no package. Fetch them again: apt-get update")
        super().__init__(
            {
                "kind": "debian",
                "name": "packages",
                "licence": LICENCE,
                "architecture": architecture,
                "releases": sorted({one.release for one in lists}),
                "sha256": digest(contents),
                "bytes": sum(map(len, contents)),
            },
            kind="text",
        )
        self.packages = packages
        self.popularity = Counter(name for one in packages.values() for name in one.needs)

    def entries(self) -> list[Entry]:
        kept = distinct(self.packages.values(), self.popularity)
        counts = {
            "packages": len(self.packages),
            "without_long_description": sum(not one.text for one in self.packages.values()),
            "distinct_texts": len(kept),
        }
        self.provenance |= counts
        self.remarks = [
            f"of {counts['packages']:,} packages {counts['without_long_description']:,} have no long description; "
            f"of those with the same one, the one that most others depend on is taken: {len(kept):,}"
        ]
        return [Entry(one.name, one.name, partial(_text, one.text), label=one.section) for one in kept]

    def companions(self, taken: Mapping[str, str]) -> dict[str, bytes]:
        return {
            "interactions.csv": to_csv(("user", "item", "time"), interactions(self.packages, self.popularity, taken)),
            "queries.csv": to_csv(("query", "item", "split"), queries(self.packages, taken)),
        }


def read_packages(lists: Iterable[bytes], translations: Iterable[bytes]) -> dict[str, Package]:
    """Packages by name, in its order.

    Args:
        lists: contents of `Packages` files. Of several versions the one of the first file is taken, its first record.
        translations: contents of `Translation-en` files.
    """
    described: dict[str, str] = {}
    for content in translations:
        for fields in stanzas(content):
            described.setdefault(fields.get("Description-md5", ""), fields.get("Description-en", ""))
    found: dict[str, Package] = {}
    for content in lists:
        for fields in stanzas(content):
            name = fields.get("Package", "")
            if not name or name in found:
                continue
            description = described.get(fields.get("Description-md5", ""), fields.get("Description", ""))
            synopsis, _, body = description.partition("\n")
            needs = ", ".join(fields[one] for one in ("Pre-Depends", "Depends") if fields.get(one))
            found[name] = Package(
                name, fields.get("Section", "unknown"), synopsis.strip(), paragraphs(body), dependencies(needs, name)
            )
    return dict(sorted(found.items()))


def paragraphs(body: str) -> str:
    r"""The body of a description as text: lines of a paragraph joined, listed ones kept.

    >>> paragraphs(" One\n two.\n .\n Three:\n  * four")
    'One two.\n\nThree:\n* four'
    """
    lines: list[str] = []
    for line in body.split("\n"):
        if line.strip() == ".":
            lines.append("\n\n")
        elif line.startswith(("  ", " \t")):
            lines.append(f"\n{line.strip()}\n")
        elif line.strip():
            lines.append(f"{line.strip()} ")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" *\n *", "\n", "".join(lines)).replace("\n\n*", "\n*")).strip()


def dependencies(field: str, own: str = "") -> tuple[str, ...]:
    """Names in a Depends field, each once.

    >>> dependencies("libc6 (>= 2.34), mawk | awk, python3:any, libc6 (<< 3)")
    ('libc6', 'mawk', 'python3')
    """
    first = (re.split(r"[\s|(:\[]", part.strip(), maxsplit=1)[0] for part in field.split(","))
    return tuple(dict.fromkeys(name for name in first if name and name != own))


def distinct(packages: Iterable[Package], popularity: Mapping[str, int]) -> list[Package]:
    """Of packages with one text the most popular one, by name; those without a text not at all."""
    kept: dict[str, Package] = {}
    for one in sorted(packages, key=lambda one: (-popularity.get(one.name, 0), one.name)):
        if one.text:
            kept.setdefault(" ".join(one.text.split()), one)
    return sorted(kept.values(), key=lambda one: one.name)


def interactions(
    packages: Mapping[str, Package], popularity: Mapping[str, int], taken: Mapping[str, str]
) -> list[tuple[str, str, int]]:
    """(user, item, time): what each package depends on, among the items, from the most popular one to the rarest.

    Nobody chose anything in this order: "time" is a rank.
    """
    rows = []
    for name, one in packages.items():
        items = sorted((need for need in one.needs if need in taken), key=lambda item: (-popularity[item], item))
        rows += [(name, item, time) for time, item in enumerate(items)]
    return rows


def queries(packages: Mapping[str, Package], taken: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(query, item, split): the synopsis of each item, where no other one has the same.

    Split by a hash of the item, 8 : 1 : 1, whatever set of the shards it is in: an index holds all documents.
    """
    asked = Counter(packages[item].synopsis.casefold() for item in taken)
    rows = []
    for item in sorted(taken):
        synopsis = packages[item].synopsis
        if synopsis and asked[synopsis.casefold()] == 1:
            place = fraction_of(f"query:{item}")
            rows.append((synopsis, item, "train" if place < 0.8 else "val" if place < 0.9 else "test"))
    return rows


def _text(text: str) -> dict[str, bytes]:
    return {"txt": text.encode("utf-8", "surrogateescape")}
