"""Samples of several shard sets -> documents of a language model: text and codes of one key, in the orders asked for.

A document is [bos] its parts [eos]: of `text,image`, a caption and then <|img_start|> ... <|img_end|>. Text is taken as
text: a caption that says "<|img_start|>" does not begin a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.decode import decode
from datamodules.shardindex import ShardError
from datamodules.shards import ShardSet
from mmtok.export.token_plan import refuse_unfinished
from mmtok.export.token_shards import KIND, Record, TokenSet, laid_out
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab import load_base
from mmtok.export.vocab_map import Vocabulary

TEXT = "text"
"""Name of the part that the vocabulary's text tokenizer makes."""
TOGETHER = 256
"""Samples whose texts are tokenized at once: the text tokenizer uses all cores then."""

AGAIN = "Give the same command again."


class Document(NamedTuple):
    key: str
    ids: np.ndarray
    """(n,) int64; (L, n) of a parallel layout."""


class Texts:
    """The text tokenizer of a vocabulary, and its specials that stand around documents."""

    def __init__(self, folder: str | Path, vocabulary: Vocabulary, *, eos: str = "", bos: bool = True) -> None:
        """Read it.

        Args:
            folder: of the vocabulary.
            vocabulary: the same, read.
            eos: name of the token that ends a document; by default the tokenizer's own.
            bos: begin documents with the tokenizer's bos, where it has one that is not its eos too.

        Raises:
            ValueError: there is no token to end a document with.
        """
        tokenizer = load_base(folder)
        self.size = vocabulary.text
        self.backend = tokenizer.backend_tokenizer
        # Specials in a text are letters like others: who writes captions must not begin pictures.
        self.backend.encode_special_tokens = True
        self.backend.no_padding()
        self.backend.no_truncation()
        found = self.backend.token_to_id(eos) if eos else tokenizer.eos_token_id
        if found is None:
            said = f"has no token '{eos}'" if eos else "names no token that ends a text"
            raise ValueError(f"the text tokenizer of {folder} {said}. Give one of its own: --eos NAME.")
        self.eos = int(found)
        own = tokenizer.bos_token_id
        self.bos = int(own) if bos and own is not None and own != self.eos else None
        self.has_pad = tokenizer.pad_token_id is not None
        self.pad = int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else self.eos

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text, without specials.

        Raises:
            ValueError: the tokenizer gives ids that are not text's.
        """
        found = [one.ids for one in self.backend.encode_batch(list(texts), add_special_tokens=False)]
        for text, ids in zip(texts, found, strict=True):
            if ids and max(ids) >= self.size:
                raise ValueError(f"the text {text[:60]!r} has the id {max(ids)}, and text has those below {self.size}.")
        return found


class Keyed:
    """A shard set by key: the shard of the same name first, since sets made of one source have the same shards."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        self.numbers = {shard.name: number for number, shard in enumerate(shards.manifest.shards)}
        self._of = lru_cache(maxsize=4)(self._keys)

    def _keys(self, shard: int) -> dict[str, int]:
        try:
            index = self.shards.index(shard)
        except OSError as error:
            name = self.shards.manifest.shards[shard].name
            raise OSError(f"{name} of {self.shards.home} cannot be read: {error}. {AGAIN}") from error
        found: dict[str, int] = {}
        for number in range(len(index)):
            if found.setdefault(key := index.key(number), number) != number:
                name = self.shards.manifest.shards[shard].name
                raise ValueError(
                    f"key {key} stands twice in {name} of {self.shards.home}, so which sample is meant cannot be told. "
                    "Build the set anew, with keys that are unique in each shard."
                )
        return found

    def __iter__(self) -> Iterator[tuple[str, str, int, int]]:
        """Name of the shard, key and place of every sample, in order."""
        for number, shard in enumerate(self.shards.manifest.shards):
            for key, sample in self._of(number).items():
                yield shard.name, key, number, sample

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """Key -> shard and number of its sample; the last one's, of a key that several shards have."""
        return {key: (number, sample) for _, key, number, sample in self}

    @cached_property
    def repeated(self) -> bool:
        """Whether some key stands in several shards, so that it names a sample only together with its shard.

        Samples that could not be tokenized count: what stands under their key elsewhere is something else.
        """
        left_out = []
        if self.shards.manifest.kind == KIND and self.shards.manifest.provenance.get("bad"):
            records = [Record.read(Path(self.shards.home), name) for name in self.numbers]
            left_out = [key for record in records if record is not None for key, _ in record.bad]
        return len({*self.places, *left_out}) < len(self.shards) + len(left_out)

    def find(self, key: str, shard: str, asking: Keyed) -> tuple[int, int] | None:
        """Where a sample of another set is in this one.

        Args:
            key: of the sample.
            shard: name of its shard there.
            asking: the set that it is of.

        Raises:
            ValueError: the key alone would have to say which sample is meant, and it does not.
        """
        if shard in self.numbers and key in (keys := self._of(self.numbers[shard])):
            return self.numbers[shard], keys[key]
        repeating = next((one for one in (self, asking) if one.repeated), None)
        if repeating is None:
            return self.places.get(key)
        if shard in self.numbers:  # the sample of this key in another shard is another one
            return None
        raise ValueError(
            f"keys repeat between shards of {repeating.shards.home}, and {self.shards.home} has no shard '{shard}', so "
            f"which sample '{key}' of it is meant cannot be told. Give sets with the same shards, or unique keys."
        )


@dataclass
class Source:
    """A shard set that gives parts of documents."""

    keyed: Keyed
    codes: TokenSet | None
    """None where it has no codes, only text."""
    spec: TokenSpec | None
    """As the vocabulary lays its codes out."""
    has_text: bool

    @classmethod
    def open(cls, path: str, vocabulary: Vocabulary, text: str) -> Source:
        """Open one of codes, or one with texts.

        Args:
            path: of the shard set.
            vocabulary: that its codes are for.
            text: extension of the member with the text.

        Raises:
            ValueError: it has neither, its codes are not the vocabulary's, or the job that makes them has not ended.
        """
        refuse_unfinished(Path(path))
        shards = ShardSet.open(path)
        has_text = text in shards.manifest.extensions
        if shards.manifest.kind != KIND:
            if not has_text:
                listed = ", ".join(shards.manifest.extensions)
                raise ValueError(f"{path} holds no codes and no .{text}, only {listed}. Make codes: mmtok tokenize.")
            return cls(Keyed(shards), None, None, True)
        codes = TokenSet(shards)
        spec = laid_out(codes.spec, vocabulary, path)
        return cls(Keyed(shards), codes, spec, has_text)


@dataclass
class Documents:
    """All documents, in an order that depends on the sets alone: set by set, key by key, order by order."""

    sources: Sequence[Source]
    vocabulary: Vocabulary
    texts: Texts | None
    """None where documents are items of a layout that is no row of the vocabulary's ids: one part, nothing around."""
    orders: Sequence[Sequence[str]]
    """Names of parts: prefixes of the vocabulary, or `text`."""
    text: str = "txt"
    """Extension of the member with the text."""
    missing: Counter[str] = field(default_factory=Counter)
    """Order and part -> keys that lack it, so that there was no such document."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of what could not be read."""
    keys: int = 0

    def __iter__(self) -> Iterator[Document]:
        group: list[tuple[str, dict[str, Any]]] = []
        for key, parts in self._samples():
            group.append((key, parts))
            if len(group) == TOGETHER:
                yield from self._made(group)
                group = []
        yield from self._made(group)

    def _samples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key -> the text as a string, codes as ids."""
        wanted = {name for order in self.orders for name in order}
        for at, source in enumerate(self.sources):
            for shard, key, number, sample in source.keyed:
                if any(other.keyed.find(key, shard, source.keyed) for other in self.sources[:at]):
                    continue
                self.keys += 1
                later = [(other, other.keyed.find(key, shard, source.keyed)) for other in self.sources[at + 1 :]]
                parts: dict[str, Any] = {}
                try:
                    self._read(source, key, (number, sample), wanted, parts)
                    for other, place in later:
                        if place is not None:
                            self._read(other, key, place, wanted, parts)
                except ShardError as error:
                    self.bad.append((key, str(error)))
                    continue
                except OSError as error:  # may pass: a pack without the sample would look finished
                    raise OSError(f"{key} in {shard} cannot be read: {error}. {AGAIN}") from error
                yield key, parts

    def _read(self, source: Source, key: str, place: tuple[int, int], wanted: set[str], parts: dict[str, Any]) -> None:
        prefix = source.spec.prefix if source.spec else ""
        takes_text = TEXT in wanted and source.has_text and TEXT not in parts
        if not takes_text and prefix not in wanted:
            return
        extensions = {"npy", "json"} if prefix in wanted else set()
        extensions |= {self.text.rpartition(".")[2]} if takes_text else set()
        members = source.keyed.shards.read(*place, extensions).members
        if takes_text and self.text in members:
            parts[TEXT] = decode("txt", members[self.text])
        if prefix in wanted:
            assert source.codes is not None
            assert source.spec is not None
            if prefix in parts:
                raise ValueError(f"{key} has codes of '{prefix}' in two of the sets. Give each key once.")
            codes = source.codes.codes(members, key)
            parts[prefix] = self.vocabulary.to_ids(codes, source.spec)[0].numpy()

    def _made(self, group: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Document]:
        texts = {at: parts[TEXT] for at, (_, parts) in enumerate(group) if TEXT in parts}  # keys may repeat
        assert self.texts is not None or not texts
        ids = dict(zip(texts, self.texts.ids(list(texts.values())), strict=True)) if self.texts else {}
        for at, (key, parts) in enumerate(group):
            known = {**parts, TEXT: np.array(ids[at], dtype=np.int64)} if at in ids else dict(parts)
            for order in self.orders:
                lacking = [name for name in order if name not in known]
                if lacking:
                    self.missing[f"{','.join(order)}: {lacking[0]}"] += 1
                else:
                    yield Document(key, self._joined([known[name] for name in order]))

    def _joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        if self.texts is None:
            assert len(parts) == 1
            return parts[0]
        first = [] if self.texts.bos is None else [self.texts.bos]
        return np.concatenate([np.array(first, dtype=np.int64), *parts, np.array([self.texts.eos], dtype=np.int64)])
