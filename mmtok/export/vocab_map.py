"""`vocab_map.json`: where the text, the specials and the codes of several tokenizers stand in one table of ids.

Text first, as its tokenizer numbers it; then all specials; then the codes, a block a level, without a gap; then rows
that fill the table up to a multiple of 128. The whole is computed from the text's size and the specs (`arrange`), and
what a file says otherwise is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.codes import Codes
from mmtok.export.given import ids_of
from mmtok.export.grammar import Grammar
from mmtok.export.header import DIGITS
from mmtok.export.layout import Place, from_ids, to_ids
from mmtok.export.token_spec import TokenSpec
from mmtok.schema import read_json

FILE = "vocab_map.json"
VERSION = 1
ROWS = 128
"""The table has a multiple of this many rows: matrix products of other widths are slower."""
STRINGS = 100_000
"""Codes up to which all have names; above, tokenizers load for many seconds and the ids do without."""
SPECIALS = ("start", "end", "row", "pad")


@dataclass(frozen=True)
class Vocabulary:
    """One table of ids for text and codes."""

    text: int
    """Ids below are the text tokenizer's."""
    specs: tuple[TokenSpec, ...]
    """Of the tokenizers, in the order of their blocks."""
    places: tuple[Place, ...]
    """Where each stands."""
    used: int
    """Ids below mean something."""
    size: int
    """Rows of the embedding."""
    strings: bool = True
    """Whether codes have names in `tokenizer.json`; specials always do."""
    base_sha256: str = ""
    """Of the text tokenizer's `tokenizer.json`."""

    @classmethod
    def arrange(
        cls,
        text: int,
        specs: Sequence[TokenSpec],
        *,
        digits: Sequence[int] = (),
        rows: int = 0,
        base_sha256: str = "",
    ) -> Vocabulary:
        """Give every special and code its id.

        Args:
            text: ids of the text tokenizer, its added tokens included.
            specs: of the tokenizers; their prefixes differ. None make a vocabulary of text alone.
            digits: the text's own ids of 0 to 9 and *, where each is one token; else they become specials.
            rows: at least so many rows in the table: those a model has already.
            base_sha256: of the text tokenizer's file.

        Raises:
            ValueError: two tokenizers have one prefix, so that their tokens would have the same names.
        """
        prefixes = [spec.prefix for spec in specs]
        if len(set(prefixes)) < len(prefixes):
            raise ValueError(f"prefixes {prefixes} must differ. Export one with another: mmtok export ... --prefix.")
        free = text + len(SPECIALS) * len(specs)
        if any(spec.header for spec in specs) and not digits:
            digits, free = range(free, free + len(DIGITS)), free + len(DIGITS)
        places = []
        for number, spec in enumerate(specs):
            own = spec.layout.kind == "own_head"  # its codes are in a table of their own
            blocks = []
            for codes in spec.codebook_sizes:
                blocks.append(0 if own else free)
                free += 0 if own else codes
            start, end, row, pad = range(text + len(SPECIALS) * number, text + len(SPECIALS) * (number + 1))
            places.append(Place(start, end, row, pad, () if own else tuple(blocks), tuple(digits)))
        size = -(-max(free, rows) // ROWS) * ROWS
        codes = sum(sum(spec.codebook_sizes) for spec, place in zip(specs, places, strict=True) if place.blocks)
        return cls(text, tuple(specs), tuple(places), free, size, codes <= STRINGS, base_sha256)

    @classmethod
    def read(cls, path: str | Path) -> Vocabulary:
        """The vocabulary of a folder that `mmtok vocab merge` wrote, or of a file.

        Raises:
            ValueError: there is none, or its ids overlap, leave a gap or stand in another order; names which.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        content = read_json(path, "Make one: mmtok vocab merge --base DIR BUNDLE... -o OUT.")
        try:
            return _parse(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} lacks {error}. Make it anew: mmtok vocab merge.") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(_plain(self), indent=1) + "\n"

    def find(self, spec: TokenSpec) -> Place:
        """Where a tokenizer stands.

        Raises:
            ValueError: it is not in this vocabulary, or one of its name that differs is.
        """
        for known, place in zip(self.specs, self.places, strict=True):
            if known.prefix == spec.prefix and known.sha256 == spec.sha256:
                return place
            if known.prefix == spec.prefix:
                raise ValueError(f"the vocabulary was made for another '{spec.prefix}': {_differences(known, spec)}.")
        raise ValueError(f"the vocabulary has no '{spec.prefix}', only {[known.prefix for known in self.specs]}.")

    def only_read(self) -> list[tuple[int, int]]:
        """Ranges of ids, first and one beyond the last, of tokenizers whose tokens stand in prompts alone.

        A model that is trained to predict them learns what it is never asked for: leave them out of its loss, and with
        them the digits of headers, which stand between `read_items`.
        """
        ranges = []
        for spec, place in self._read():
            # No blocks of own_head, whose codes are in a table of their own.
            blocks = zip(place.blocks, spec.codebook_sizes, strict=False)
            ranges += [(place.start, place.start + len(SPECIALS)), *((first, first + size) for first, size in blocks)]
        return ranges

    def read_items(self) -> list[tuple[int, int]]:
        """The ids that begin and end an item of such a tokenizer."""
        return [(place.start, place.end) for _, place in self._read()]

    def _read(self) -> Iterator[tuple[TokenSpec, Place]]:
        found = zip(self.specs, self.places, strict=True)
        return ((spec, place) for spec, place in found if spec.role == "understanding")

    def spec(self, prefix: str) -> TokenSpec:
        """The spec of the tokenizer with a prefix.

        Raises:
            ValueError: there is none.
        """
        for spec in self.specs:
            if spec.prefix == prefix:
                return spec
        raise ValueError(f"the vocabulary has no '{prefix}', only {[known.prefix for known in self.specs]}.")

    def to_ids(self, codes: Codes, spec: TokenSpec) -> list[Tensor]:
        """Codes -> the ids of each item; see `mmtok.export.layout.to_ids`."""
        return to_ids(codes, spec, self.find(spec))

    def from_ids(
        self, ids: Sequence[Tensor | Sequence[int]], spec: TokenSpec, grid: tuple[int, int] | None = None
    ) -> Codes:
        """The ids of each item -> codes; see `mmtok.export.layout.from_ids`."""
        return from_ids(ids, spec, self.find(spec), grid)

    def split(self, ids: Tensor | Sequence[int]) -> list[tuple[str, Tensor]]:
        """A sequence, such as a model generates, in order: ("text", ids), or (prefix, ids) as `from_ids` takes them.

        An item without an end is told by its prefix, too, up to where the next one starts; `from_ids` refuses it.

        Raises:
            ValueError: this is no sequence, or has ids that mean nothing.
        """
        ids = ids_of(ids)
        if ids.ndim != 1:
            raise ValueError(
                f"split takes one sequence, and this is of shape {tuple(ids.shape)}. Give them one by one."
            )
        if bool((beyond := (ids < 0) | (ids >= self.used)).any()):
            at = int(beyond.nonzero()[0])
            raise ValueError(
                f"id {int(ids[at])} at place {at} means nothing: the vocabulary has 0 to {self.used - 1}. Generate "
                "under its grammar (logits_processor), or give another vocabulary."
            )
        parts: list[tuple[str, Tensor]] = []
        at = 0
        while at < len(ids):
            begins = torch.isin(ids[at:], torch.tensor([place.start for place in self.places])).nonzero()
            first = at + int(begins[0]) if len(begins) else len(ids)
            if first > at:
                parts.append(("text", ids[at:first]))
            if first < len(ids):
                which = next(i for i, place in enumerate(self.places) if place.start == int(ids[first]))
                ends = (ids[first:] == self.places[which].end).nonzero()
                at = first + int(ends[0]) + 1 if len(ends) else len(ids)
                if len(begins) > 1:
                    at = min(at, first + int(begins[1] - begins[0]))
                parts.append((self.specs[which].prefix, ids[first:at]))
            else:
                at = first
        return parts

    def names(self) -> Iterator[tuple[int, str]]:
        """(id, name) of what is added to the text tokenizer, in order of ids."""
        for spec, place in zip(self.specs, self.places, strict=True):
            yield from ((getattr(place, what), spec.special(what)) for what in SPECIALS)
        digits = next((place.digits for place in self.places if place.digits and place.digits[0] >= self.text), ())
        yield from zip(digits, [f"<|grid_{sign}|>" for sign in (*DIGITS[:-1], "by")], strict=False)
        for spec, place in zip(self.specs, self.places, strict=True):
            if self.strings and place.blocks:
                yield from ((place.blocks[0] + i, spec.token(i)) for i in range(sum(spec.codebook_sizes)))

    def grammar(self, *specs: TokenSpec, **limits: Any) -> Grammar:
        """What may follow what; see `Grammar`, whose arguments the `limits` are."""
        for spec in specs:
            self.find(spec)
        return Grammar(self.text, self.specs, self.places, tuple(spec.prefix for spec in specs), **limits)

    def prefix_allowed_tokens_fn(self, *specs: TokenSpec, **limits: Any) -> Callable[[int, Tensor], Tensor]:
        """For `generate(prefix_allowed_tokens_fn=...)` of transformers: ids that may follow a sequence.

        Args:
            *specs: tokenizers whose items may be begun beside text; none means those of all.
            **limits: `grid`, `levels`, `positions`, as `Grammar` takes them.
        """
        return self.grammar(*specs, **limits).allowed

    def logits_processor(self, *specs: TokenSpec, **limits: Any) -> Grammar:
        """The same as `prefix_allowed_tokens_fn`, faster, for `generate(logits_processor=[...])` of transformers."""
        return self.grammar(*specs, **limits)


def _plain(vocabulary: Vocabulary) -> dict[str, Any]:
    modalities = []
    for spec, place in zip(vocabulary.specs, vocabulary.places, strict=True):
        blocks = [
            {"level": level, "start": start, "end": start + size}
            for level, (start, size) in enumerate(zip(place.blocks, spec.codebook_sizes, strict=False))
        ]
        specials = {what: getattr(place, what) for what in SPECIALS}
        entry = {"prefix": spec.prefix, "spec_sha256": spec.sha256, "specials": specials, "blocks": blocks}
        modalities.append(entry | {"spec": asdict(spec)})
    return {
        "version": VERSION,
        "size": vocabulary.size,
        "used": vocabulary.used,
        "text": vocabulary.text,
        "strings": vocabulary.strings,
        "base_sha256": vocabulary.base_sha256,
        "digits": list(next((place.digits for place in vocabulary.places), ())),
        "modalities": modalities,
    }


def _parse(content: dict[str, Any]) -> Vocabulary:
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']}, and this mmtok reads {VERSION}.")
    specs = [TokenSpec.parse(entry["spec"], entry["prefix"]) for entry in content["modalities"]]
    _check_ranges(content)
    text, digits = content["text"], tuple(content["digits"])
    own = digits if digits and digits[0] < text else ()
    sha = content["base_sha256"]
    vocabulary = Vocabulary.arrange(text, specs, digits=own, rows=content["size"], base_sha256=sha)
    wanted = json.loads(json.dumps(_plain(vocabulary)))
    if wanted != content:
        key = next(key for key in wanted | content if wanted.get(key) != content.get(key))
        raise ValueError(f"its '{key}' is not what its specs give. Make it anew: mmtok vocab merge.")
    return vocabulary


def _check_ranges(content: dict[str, Any]) -> None:
    """Refuse ids that mean two things, or none."""
    ranges = [(0, content["text"], "text")]
    for entry in content["modalities"]:
        ranges += [(at, at + 1, f"<|{entry['prefix']}_{what}|>") for what, at in entry["specials"].items()]
        ranges += [
            (block["start"], block["end"], f"{entry['prefix']} level {block['level']}") for block in entry["blocks"]
        ]
    ranges += [(at, at + 1, f"digit {i}") for i, at in enumerate(content["digits"]) if at >= content["text"]]
    ranges.sort()
    for (_, stop, name), (start, _, other) in pairwise(ranges):
        if start < stop:
            raise ValueError(f"{other} begins at id {start} and {name} ends at {stop}: an overlap.")
        if start > stop:
            raise ValueError(f"{name} ends at id {stop} and {other} begins at {start}: a gap.")


def _differences(known: TokenSpec, other: TokenSpec) -> str:
    """Which fields of two specs differ, for people."""
    first, second = asdict(known), asdict(other)
    names = [name for name in first if first[name] != second[name]]
    return ", ".join(f"{name} {first[name]!r} there, {second[name]!r} here" for name in names)
