"""WordNet's nouns: a gloss and a class an item, and the tree of what is a kind of what, to judge hierarchies by.

Nouns alone: they hang together under one root ("entity"), verbs stand in hundreds of trees, adjectives and adverbs in
none. The format is that of wndb(5WN).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from datamodules.build.deb import Deb
from datamodules.build.source import Entry
from datamodules.build.tables import to_csv

NOUNS = "usr/share/wordnet/data.noun"
FILES = (
    "Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
    "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
)  # fmt: skip
"""The lexicographers' files of nouns, from number 3 on (lexnames(5WN))."""
POINTERS = {"@": "kind", "@i": "instance"}
"""To what a noun is a kind of, and to what a name is an instance of."""


class Synset(NamedTuple):
    key: str
    """First word and offset, as "dog.n.02084071"."""
    label: str
    """The lexicographers' file."""
    gloss: bytes
    """Definition and examples."""
    hypernyms: tuple[tuple[str, str], ...]
    """(offset, "kind" or "instance") of each; one in fifty has several."""
    offset: str


def glosses(deb: Deb) -> list[Entry]:
    """An entry a noun."""
    return [Entry(one.key, one.key, partial(_text, one.gloss), label=one.label) for one in synsets(deb)]


def hypernyms(deb: Deb, taken: Mapping[str, str]) -> dict[str, bytes]:
    """The whole tree as `hypernyms.csv` (item,hypernym,relation), whatever part of the items was taken.

    Every hypernym is kept: where a noun has several, the tree is a graph without circles, and who measures decides.
    """
    found = list(synsets(deb))
    keys = {one.offset: one.key for one in found}
    if lost := next((one.key for one in found for offset, _ in one.hypernyms if offset not in keys), None):
        raise ValueError(f"{lost} in {deb.path} is a kind of something that is not there. Fetch the package again.")
    rows = [(one.key, keys[offset], relation) for one in found for offset, relation in one.hypernyms]
    return {"hypernyms.csv": to_csv(("item", "hypernym", "relation"), rows)}


def synsets(deb: Deb) -> Iterator[Synset]:
    """The nouns of the package, in the order of their offsets.

    Raises:
        ValueError: the package holds no nouns, or they are damaged; names the line.
    """
    content = dict(deb.files(lambda name: name == NOUNS)).get(NOUNS)
    if content is None:
        raise ValueError(f"{deb.path} holds no {NOUNS}: it is not the package wordnet-base.")
    for number, line in enumerate(content.splitlines(), 1):
        if line.startswith(b"  ") or not line.strip():  # the licence
            continue
        try:
            yield parse_synset(line)
        except (ValueError, IndexError, UnicodeDecodeError) as error:
            raise ValueError(
                f"line {number} of {NOUNS} in {deb.path} is no synset. Fetch the package again."
            ) from error


def parse_synset(line: bytes) -> Synset:
    """One line of data.noun.

    Raises:
        ValueError, IndexError: it is none.
    """
    data, bar, gloss = line.partition(b" | ")
    if not bar:
        raise ValueError("no gloss")
    fields = data.decode("ascii").split(" ")
    offset, file, words = fields[0], int(fields[1]), int(fields[3], 16)
    at = 4 + 2 * words
    pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
    above = tuple((one[1], POINTERS[one[0]]) for one in pointers if one[0] in POINTERS)
    if file < 3:
        raise ValueError("no noun")
    return Synset(f"{fields[4]}.n.{offset}", f"noun.{FILES[file - 3]}", gloss.strip(), above, offset)


def _text(gloss: bytes) -> dict[str, bytes]:
    return {"txt": gloss}
