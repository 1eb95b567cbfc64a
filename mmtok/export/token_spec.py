"""The contract of a tokenizer and a language model: `token_spec.json`, what its ids mean and how they are laid out.

Ids in it are relative, 0 to size - 1 of each level: offsets into a vocabulary belong to the vocabulary, which
`mmtok vocab merge` makes of one text tokenizer and any number of these.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mmtok.codes import CodeSpec, Modality
from mmtok.schema import parse, read_json

FILE = "token_spec.json"
VERSION = 1
PREFIXES: dict[str, str] = {"image": "img", "audio": "aud", "text": "txt", "vector": "vec"}
"""How the names of tokens of each modality begin, unless another prefix is asked for."""
READ = "_in"
"""What is added for tokens that are read alone: those of the same modality that are written have names of their own."""
_LATER = ("kinds", "positions", "source_size")
"""Fields that came after the first version; empty ones stay out of its text, and so of its hash."""
_LETTERS = set(string.ascii_lowercase + string.digits + "_-")

LayoutKind = Literal["flat", "parallel", "own_head"]
Order = Literal["position_major", "level_major"]
Role = Literal["generation", "understanding", "both"]
LengthKind = Literal["fixed", "grid", "frames", "nested"]


@dataclass(frozen=True)
class Layout:
    """How codes (L, T) become what a language model sees."""

    kind: LayoutKind = "flat"
    """flat: one sequence, a block of ids a level; parallel: a row a level, each delayed (MusicGen, Moshi); own_head:
    ids from 0 for a head and an embedding of their own (Janus)."""
    order: Order = "position_major"
    """flat: all levels of a position, then the next position (AnyGPT); or all positions of a level, then the next."""
    delays: tuple[int, ...] = ()
    """parallel: by how many positions each level comes late; empty means 0, 1, 2, ..."""


@dataclass(frozen=True)
class TokenSpec:
    """What a reader of ids must know, without the tokenizer."""

    modality: Modality
    codebook_sizes: tuple[int, ...]
    """Ids of each level."""
    prefix: str
    """Of the names of its tokens, lower-case ASCII: "img" gives <|img:00042|>."""
    quantizer: str = ""
    """Registered name, for people."""
    shared_codebook: bool = False
    """Whether all levels look up the same codes."""
    fingerprint: str = ""
    """Of the tokenizer: codes of another mean nothing here."""
    role: Role = "both"
    """What the ids are good for: to be predicted, to be read, or both. A grammar never lets a model write those that
    are only read (Janus, arXiv 2410.13848, which parts the two)."""
    downsample: int = 1
    """Pixels (a side) or samples behind one position."""
    channels: int = 1
    """Channels of the signal."""
    sample_rate: int | None = None
    """Samples a second, for audio."""
    length: LengthKind = "frames"
    """What decides how many positions an item has: nothing, its grid, its duration, or how many are kept."""
    positions: int = 0
    """fixed: positions of an item; nested: of one that keeps all. 0 where its grid or its duration tells."""
    source_size: tuple[int, ...] = ()
    """fixed, nested: size of what codes that come from ids alone are of, as in training; empty where positions tell."""
    layout: Layout = Layout()
    header: bool = False
    """grid: write "{H}*{W}" in digits before the rows, so that the shape is read before the codes (Emu3)."""
    rows: bool = False
    """grid: put <|img_row|> after each row but the last (Apertus)."""
    extras: tuple[str, ...] = ()
    """Tensors that `Codes.extras` holds for each item and a language model does not see (a gain)."""
    kinds: tuple[Literal["code", "disambiguation"], ...] = ()
    """What each level is, where not all are codes: the last may number the items whose codes are the same. The
    tokenizer gives none there; the corpus of items does."""
    golden_sha256: str = ""
    """Of the codes of the golden inputs."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if not self.codebook_sizes or min(self.codebook_sizes) < 1:
            raise ValueError(
                f"codebook_sizes={list(self.codebook_sizes)} must hold a size of 1 or more for each level."
            )
        if not self.prefix or not set(self.prefix) <= _LETTERS:
            raise ValueError(f"prefix='{self.prefix}' must be of a-z, 0-9, _ and -. Example: 'img'.")
        if len(self.layout.delays) not in (0, len(self.codebook_sizes)) or min(self.layout.delays, default=0) < 0:
            delays, levels = list(self.layout.delays), len(self.codebook_sizes)
            raise ValueError(f"delays={delays} must be {levels} numbers of 0 or more, one for each level, or none.")
        if len(self.kinds) not in (0, len(self.codebook_sizes)) or "disambiguation" in self.kinds[:-1]:
            raise ValueError(
                f"kinds={list(self.kinds)} must be one for each of {len(self.codebook_sizes)} levels, and only the "
                "last one may be of disambiguation."
            )
        if self.positions < 0 or (self.positions and self.length not in ("fixed", "nested")):
            raise ValueError(f"positions={self.positions} are of length fixed or nested, and it is '{self.length}'.")
        if (self.header or self.rows) and self.length != "grid":
            raise ValueError(f"header and rows are for grids, and length is '{self.length}'.")
        if (self.header or self.rows) and self.layout.kind != "flat":
            raise ValueError(f"header and rows are for layout 'flat', and it is '{self.layout.kind}'.")

    def special(self, what: str) -> str:
        """The name of one of its specials: "start", "end", "row", "pad"."""
        return f"<|{self.prefix}_{what}|>"

    def token(self, number: int) -> str:
        """The name of the code with this number in the block of all levels, ASCII, closed and of fixed width."""
        return f"<|{self.prefix}:{number:05d}|>"

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(self._plain(), indent=1) + "\n"

    @property
    def coded(self) -> tuple[int, ...]:
        """Sizes of the levels that the tokenizer gives."""
        return self.codebook_sizes[:-1] if "disambiguation" in self.kinds else self.codebook_sizes

    def _plain(self) -> dict[str, Any]:
        """Its fields, without those that say nothing here and that older specs do not have."""
        return {name: value for name, value in asdict(self).items() if name not in _LATER or value}

    @property
    def sha256(self) -> str:
        """Of its content, which token shards carry: packing refuses codes of another tokenizer."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def parse(cls, content: Mapping[str, Any], of: str = FILE) -> TokenSpec:
        """What `to_json` wrote, read back.

        Raises:
            ValueError: a field is unknown, missing or makes no sense; names it and the file.
        """
        if content.get("version") != VERSION:
            raise ValueError(f"{of}: version {content.get('version')}, and this mmtok reads {VERSION}.")
        try:
            return parse(cls, content, label=FILE)
        except ValueError as error:
            raise ValueError(f"{of}: {error}") from error

    @classmethod
    def read(cls, path: str | Path) -> TokenSpec:
        """The spec of a bundle, or of a file.

        Raises:
            ValueError: there is none, or it cannot be used.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        return cls.parse(read_json(path, "Write a bundle: mmtok export TOKENIZER OUT."), str(path))

    @classmethod
    def of(cls, spec: CodeSpec, *, prefix: str = "", extra_size: int = 0, **facts: Any) -> TokenSpec:
        """The spec of a tokenizer whose codes have a `CodeSpec`.

        Args:
            spec: `tokenizer.spec`.
            prefix: of the names of its tokens; by default that of its modality and role.
            extra_size: ids of a last level of disambiguation; 0 for none.
            **facts: further fields.

        Raises:
            ValueError: some level ticks slower than others, which no layout here can express.
        """
        if any(stride != 1 for stride in spec.stride):
            raise ValueError(f"levels with strides {list(spec.stride)} have no layout; all must tick together.")
        kinds: dict[str, LengthKind] = {"image": "grid", "vector": "fixed"}
        sizes = spec.codebook_sizes
        if extra_size:
            facts["kinds"] = (*("code",) * len(sizes), "disambiguation")
            sizes = (*sizes, extra_size)
        usual: LengthKind = kinds.get(spec.modality, "frames")
        if spec.positions is not None:
            usual = "nested" if spec.nested else "fixed"
        length = facts.pop("length", usual)
        return cls(
            modality=spec.modality,
            codebook_sizes=sizes,
            prefix=prefix or usual_prefix(spec.modality, facts.get("role", "both")),
            downsample=spec.downsample,
            channels=spec.channels,
            sample_rate=spec.sample_rate,
            length=length,
            positions=spec.positions or 0,
            **facts,
        )


def usual_prefix(modality: Modality, role: Role) -> str:
    """How the names of tokens begin that are of this modality and role: "img", and "img_in" of those that are read."""
    return PREFIXES[modality] + (READ if role == "understanding" else "")
