"""Texts: documents for evaluation in their order, and a balanced sample of them to fit a vocabulary on."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from datamodules.base import DataConfig, register_data
from datamodules.decode import DecodeError, decode
from datamodules.module import ShardDataModule
from datamodules.order import Place
from datamodules.reader import SlotSample, count_bad
from datamodules.shardindex import ShardError
from datamodules.shards import ShardSet

MOST_BYTES = 2_000_000_000
"""Of a sample: the engine counts pairs in 32 bits with a sign, and wraps round at 2^31 without a word."""


@dataclass(frozen=True, kw_only=True)
class TextsConfig(DataConfig):
    gives = "documents"
    sample_mb: float = 200.0
    """Megabytes of text that a vocabulary is fitted on at most. More than a gigabyte changes little and takes memory:
    the engine holds every distinct word."""
    temperature: float = 3.33
    """How languages share the sample: in proportion to their bytes to the power of 1/temperature. 1 keeps their sizes,
    a large one gives each the same; the default is XLM-R's exponent, 0.3. A language that has less gives all it has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sample_mb * 1e6 <= MOST_BYTES:
            raise ValueError(
                f"sample_mb={self.sample_mb} must be above 0 and at most {MOST_BYTES / 1e6:,.0f}: the engine counts in "
                "32 bits. 1000 is plenty."
            )
        if self.temperature < 1:
            raise ValueError(f"temperature={self.temperature} must be at least 1.")


class Document(NamedTuple):
    text: str
    language: str
    """Name of its class; of its set, where there are no classes."""
    parallel: str
    """What it has in common with its translations; empty where it says nothing."""
    key: str


@register_data("texts", TextsConfig)
class Texts(ShardDataModule):
    """Batches of lists: "x" (texts), "language", "parallel" and "key"."""

    config: TextsConfig
    content = ("txt",)
    extensions = ("txt", "cls", "json")

    def item(self, sample: SlotSample, training: bool) -> Document:
        one = (self.training_sets() if training else self.validation_sets())[sample.set]
        return document(one, sample.key, sample.members)

    def batch(self, items: list[Any]) -> dict[str, Any]:
        texts, languages, parallel, keys = zip(*items, strict=True)
        return {"x": list(texts), "language": list(languages), "parallel": list(parallel), "key": list(keys)}

    def to_signal(self, x: Tensor) -> Tensor:
        return x

    def sample(self, seed: int) -> Sample:
        """A balanced sample of the training sets; nothing needs to be held out for it.

        Raises:
            ConfigError: a set is missing, or holds no texts.
        """
        self.check_content(self.training_sets())
        return Sample(self.training_sets(), self.config, seed)


def document(source: ShardSet, key: str, members: dict[str, bytes]) -> Document:
    """The members of a sample as a document.

    Raises:
        DecodeError: there is no text, or it is no UTF-8.
    """
    found = next((name for name in members if name.rpartition(".")[2] == "txt"), None)
    if found is None:
        raise DecodeError(f"no text among {sorted(members) or 'no members'}; known: txt")
    classes = source.manifest.classes
    language = source.name(2)
    if "cls" in members and classes:
        number = decode("cls", members["cls"])
        if not 0 <= number < len(classes):
            raise DecodeError(f"class {number} is none of the {len(classes)} that the manifest names")
        language = classes[number]
    about = decode("json", members["json"]) if "json" in members else {}
    parallel = about.get("parallel", "") if isinstance(about, dict) else ""
    return Document(decode("txt", members[found]), language, str(parallel), key)


@dataclass
class Share:
    """What one language gives to a sample."""

    documents: int = 0
    bytes: int = 0
    of_bytes: int = 0
    """What there is of it."""


class _Candidate(NamedTuple):
    rank: int
    """Where the document stands in the draw: a hash of seed and key, which neither shards nor sets change."""
    language: str
    size: int
    place: Place


class _First:
    """The first documents of a language in the order of the draw, as many as a budget may ever take.

    Memory goes with the budget, not with the set: of billions of documents, these alone are held.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.of_bytes = 0
        self._bytes = 0
        self._heap: list[tuple[int, _Candidate]] = []  # the last one of the draw first

    def add(self, one: _Candidate) -> None:
        self.of_bytes += one.size
        if one.size > self.most:
            return
        heapq.heappush(self._heap, (-one.rank, one))
        self._bytes += one.size
        while self._bytes - self._heap[0][1].size > self.most:  # one more than fits stays: `take` ends at it
            self._bytes -= heapq.heappop(self._heap)[1].size

    def take(self, budget: float) -> Iterator[_Candidate]:
        """The first ones that fit, without those that alone are more than the budget.

        With the one that no longer fits, all behind it are left out: else short ones gain.
        """
        left = budget
        for one in sorted(one for _, one in self._heap if one.size <= budget):
            left -= one.size
            if left < 0:
                return
            yield one


@dataclass
class Sample:
    """Documents of every language, to a budget of bytes; the same sets, seed and budget give the same ones.

    Sizes come from the indexes, so that only what is taken is read; of sets with classes also the class of every
    document, which takes all shards of a remote set. Iterate as often as needed; the figures stand after the first
    time.
    """

    sets: Sequence[ShardSet]
    config: TextsConfig
    seed: int = 0
    languages: dict[str, Share] = field(default_factory=dict)
    """In the order of their names."""
    sha256: str = ""
    """Of every text that was given, in its order: two vocabularies of one hash had the same texts."""
    bad: list[str] = field(default_factory=list)
    """Keys that could not be read, with the reason."""
    too_long: list[str] = field(default_factory=list)
    """Languages that give nothing: each document drawn of them is more than their share."""

    def __iter__(self) -> Iterator[str]:
        taken, self.bad = self._draw(), []
        digest = hashlib.sha256()
        for one in taken:
            source = self.sets[one.place.set]
            try:
                sample = source.read(one.place.shard, one.place.sample, Texts.extensions)
                found = document(source, sample.key, sample.members)
            except (ShardError, OSError) as error:
                key = source.key(one.place.shard, one.place.sample)
                count_bad(self.bad, key, error, len(taken), self.config.max_bad_fraction)
                continue
            share, data = self.languages[one.language], found.text.encode()
            share.documents, share.bytes = share.documents + 1, share.bytes + len(data)
            digest.update(len(data).to_bytes(8, "big") + data)
            yield found.text
        self.sha256 = digest.hexdigest()

    def _draw(self) -> list[_Candidate]:
        """The documents to take, in the order of the draw, mixed over languages."""
        most = self.config.sample_mb * 1e6
        candidates: dict[str, _First] = {}
        for one in self._candidates():
            candidates.setdefault(one.language, _First(most)).add(one)
        sizes = {name: candidates[name].of_bytes for name in sorted(candidates)}
        self.languages = {name: Share(of_bytes=size) for name, size in sizes.items()}
        budgets = share_out(sizes, most, self.config.temperature)
        taken = [one for name, budget in budgets.items() for one in candidates[name].take(budget)]
        self.too_long = sorted(set(sizes) - {one.language for one in taken})
        if not taken:
            raise ValueError(
                f"data.sample_mb={self.config.sample_mb} is less than the documents drawn of every language. "
                "Raise it, or cut documents to pieces."
            )
        return sorted(taken)

    def _candidates(self) -> Iterator[_Candidate]:
        for number, source in enumerate(self.sets):
            for shard in range(len(source.counts)):
                for sample in range(int(source.counts[shard])):
                    index = source.index(shard)
                    members = index.members(sample)
                    size = next((size for name, (_, size) in members.items() if name.rpartition(".")[2] == "txt"), 0)
                    if size:
                        key = index.key(sample)
                        yield _Candidate(
                            int.from_bytes(hashlib.sha256(f"{self.seed}:{key}".encode()).digest()[:8], "big"),
                            self._language(source, shard, sample), size, Place(number, shard, sample),
                        )  # fmt: skip

    def _language(self, source: ShardSet, shard: int, sample: int) -> str:
        if not source.manifest.classes:
            return source.name(2)
        members = source.read(shard, sample, ("cls",)).members
        return document(source, "", {"txt": b"", **members}).language

    def facts(self) -> dict[str, Any]:
        """What was taken, for the run's records."""
        return {
            "sha256": self.sha256,
            "documents": sum(one.documents for one in self.languages.values()),
            "bytes": sum(one.bytes for one in self.languages.values()),
            "unreadable": len(self.bad),
            "languages": {name: vars(one) for name, one in self.languages.items()},
        }

    def told(self) -> list[str]:
        """Lines about it, for people."""
        lines = [
            f"{name}: {one.documents:,} documents, {one.bytes / 1e6:.1f} of {one.of_bytes / 1e6:.1f} MB"
            for name, one in self.languages.items()
        ]
        if self.too_long:
            lines.append(
                f"WARNING: nothing of {', '.join(self.too_long)}: each document drawn is longer than the share of its "
                "language. Raise data.sample_mb, or cut documents to pieces."
            )
        if self.bad:
            lines.append(f"WARNING: {len(self.bad)} documents could not be read. Look: mmtok shards verify.")
        size = sum(one.bytes for one in self.languages.values())
        return [*lines, f"sample of {size / 1e6:.1f} MB, sha256 {self.sha256[:16]}"]


def share_out(sizes: dict[str, int], budget: float, temperature: float) -> dict[str, float]:
    """Bytes of each language: budget x size^(1/T) / sum, where a language that has less leaves the rest to the others.

    >>> share_out({"en": 800, "fr": 100, "ja": 100}, 300, 1e9)
    {'en': 100.0, 'fr': 100, 'ja': 100}
    """
    left, budgets, open_ = budget, dict.fromkeys(sizes, 0.0), set(sizes)
    while open_ and left > 0:
        weights = {name: sizes[name] ** (1 / temperature) for name in open_}
        total = sum(weights.values())
        shares = {name: left * weight / total for name, weight in weights.items()}
        full = {name for name in open_ if shares[name] >= sizes[name]}
        if not full:
            return budgets | shares
        for name in full:
            budgets[name] = sizes[name]
            left -= sizes[name]
        open_ -= full
    return budgets
