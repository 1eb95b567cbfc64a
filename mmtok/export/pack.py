"""Documents -> rows of one length, in the format of a trainer: `mmtok pack`.

A document is never cut unless it is longer than a row, and of text alone: half a picture is none. Rows are filled best
fit: a document goes into the fullest of a few open rows that has room for it, and what is left at the end of a row is
padding. The same sets give the same rows.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from mmtok import __version__
from mmtok.export.documents import TEXT, Document, Documents, Source, Texts
from mmtok.export.drafts import refuse_taken, replaced
from mmtok.export.orders import apart, orders_of
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab_map import Vocabulary

FORMATS = ("megatron", "parquet", "webdataset", "litdata")
"""Modules of `mmtok.export.packs`, each with a `Writer`."""
FILE = "pack.json"
OPEN = 64
"""Rows that wait for documents that fit."""
Long = Literal["split", "drop"]


class Row(NamedTuple):
    """What a trainer reads as one item."""

    ids: np.ndarray
    """(N,) of the pack's type, (L, N) of a parallel layout: documents one after the other, then padding."""
    lengths: tuple[int, ...]
    """Of the documents, or the parts of a long one, along N; their sum is where the padding begins."""
    keys: tuple[str, ...]
    """Of the samples they are of."""


class Writer(Protocol):
    """What a module of `packs` offers: writes rows into a folder that exists and is empty."""

    def __init__(self, folder: Path, facts: Facts) -> None: ...

    def add(self, row: Row) -> None:
        """Write one row."""

    def close(self) -> None:
        """Finish all files."""


@dataclass
class Facts:
    """What a pack is, for its readers."""

    format: str
    length: int | None
    """Ids of a row; None where each row is a document, of its own length."""
    dtype: str
    vocabulary_size: int
    """Rows of the embedding."""
    vocabulary: dict[str, str]
    """Prefix of each tokenizer in the vocabulary -> hash of its spec."""
    orders: list[str]
    bos: int | None
    eos: int | None
    """None where documents are items of a layout that is no row of the vocabulary's ids."""
    pad: int
    """-1 of own_head, which has no id for it: `lengths` say where the padding begins."""
    sources: list[str]
    only_read: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of ids, first and one beyond the last, that a model reads and never writes: to be left out of its loss."""
    read_items: list[tuple[int, int]] = field(default_factory=list)
    """Ids that begin and end such an item: digits of its header are text's own ids, and to be left out too."""
    layout: str = "flat"
    mmtok: str = __version__
    keys: int = 0
    """Samples that were looked at."""
    documents: int = 0
    tokens: int = 0
    """Ids, without padding."""
    rows: int = 0
    padding: int = 0
    long: int = 0
    """Documents longer than a row."""
    dropped: int = 0
    """Of them, those left out."""
    missing: dict[str, int] = field(default_factory=dict)
    """Order and part -> keys that lack the part, and so gave no document of this order."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of what could not be read."""


def pack(
    sets: Sequence[str],
    vocab: str | Path,
    out: str | Path,
    *,
    to: str,
    length: int | None = None,
    orders: Sequence[Sequence[str]] = (),
    text: str = "txt",
    long: Long | None = None,
    eos: str = "",
    bos: bool = True,
    overwrite: bool = False,
) -> Facts:
    """Write documents of some shard sets for a trainer; the folder appears whole or not at all.

    Args:
        sets: of codes (`mmtok tokenize`), or with texts. The text of a key is that of the first set that has one.
        vocab: folder of the vocabulary.
        out: the folder.
        to: one of `FORMATS`.
        length: ids of a row; None for a row a document, of its own length.
        orders: of the parts of a document, by prefix or modality, or "text"; a sample gives one document for each. By
            default the codes of all sets, in their order.
        text: extension of the member with the text.
        long: what becomes of a document longer than a row: cut into rows, or left out. By default documents of text
            are cut and those with codes left out, since a model would learn to begin in the middle of a picture.
        eos: name of the token that ends a document; by default the tokenizer's own.
        bos: begin documents with the tokenizer's bos, where it has one of its own.
        overwrite: replace a pack that exists.

    Raises:
        ValueError: codes of another tokenizer than the vocabulary's, parts that no set has, or a folder that is taken.
    """
    target = Path(out)
    _refuse(to, length)
    refuse_taken(target, FILE, overwrite)  # before minutes of reading
    vocabulary = Vocabulary.read(vocab)
    sources = [Source.open(one, vocabulary, text) for one in sets]
    wanted = orders_of(orders, sources)
    alone = apart(wanted, sources, to)
    texts = Texts(vocab, vocabulary, eos=eos, bos=bos) if alone is None else None
    documents = Documents(sources, vocabulary, texts, wanted, text)
    facts = Facts(
        format=to,
        length=length,
        dtype=id_type(to, vocabulary.size),
        vocabulary_size=vocabulary.size,
        vocabulary={spec.prefix: spec.sha256 for spec in vocabulary.specs},
        orders=[",".join(order) for order in wanted],
        bos=texts.bos if texts else None,
        eos=texts.eos if texts else None,
        pad=texts.pad if texts else -1,
        sources=[source.keyed.shards.name(2) for source in sources],
        only_read=vocabulary.only_read() if alone is None else [],
        read_items=vocabulary.read_items() if alone is None else [],
    )
    if alone:
        _lay_apart(facts, alone, vocabulary)
    has_unused_text = any(source.has_text for source in sources) and not orders
    parts = {part for order in wanted for part in order}
    has_read = any(spec.role == "understanding" and spec.prefix in parts for spec in vocabulary.specs)
    _warn(facts, texts is not None and texts.has_pad, has_unused_text, has_read)
    with replaced(target, FILE, overwrite) as draft:
        _write(draft, documents, facts, long or ("split" if set(wanted) == {(TEXT,)} else "drop"))
    return facts


def id_type(form: str, size: int) -> str:
    """The type of ids that a format's own readers expect for a vocabulary."""
    if form == "parquet":
        return "int32"
    # Megatron's own rule is 65,500 and not 65,536; one for all.
    return "uint16" if size < 65_500 and form != "litdata" else "int32"


def _lay_apart(facts: Facts, spec: TokenSpec, vocabulary: Vocabulary) -> None:
    """What differs where documents are items of a layout that is no row of the vocabulary's ids."""
    facts.layout = spec.layout.kind
    if spec.layout.kind == "own_head":
        facts.vocabulary_size, facts.dtype = sum(spec.codebook_sizes), "int32"  # the padding is -1
    else:
        facts.pad = vocabulary.find(spec).pad


def _write(folder: Path, documents: Documents, facts: Facts, long: Long) -> None:
    writer: Writer = import_module(f"mmtok.export.packs.{facts.format}").Writer(folder, facts)
    counted = _counted(documents, facts)
    rows = plain(counted) if facts.length is None else fill(counted, facts, long)
    for row in rows:
        facts.rows += 1
        facts.padding += row.ids[..., sum(row.lengths) :].size
        writer.add(Row(row.ids.astype(facts.dtype), row.lengths, row.keys))
    facts.keys, facts.missing, facts.bad = documents.keys, dict(sorted(documents.missing.items())), documents.bad
    if not facts.rows:
        raise ValueError(_nothing(facts))
    writer.close()
    (folder / FILE).write_text(json.dumps(asdict(facts), indent=1) + "\n", encoding="utf-8")


def _nothing(facts: Facts) -> str:
    """Why no document is left."""
    reasons = [f"{count:,} lack a part ({name})" for name, count in facts.missing.items()]
    if facts.dropped:
        reasons.append(f"{facts.dropped:,} documents are longer than {facts.length:,} ids: give a larger --length")
    if facts.bad:
        reasons.append(f"{len(facts.bad):,} cannot be read, {facts.bad[0][0]} first: {facts.bad[0][1]}")
    return f"no document came of {facts.keys:,} samples: {'; '.join(reasons) or 'the sets are empty'}."


def _warn(facts: Facts, has_pad: bool, has_unused_text: bool, has_read: bool) -> None:
    """Say what a trainer would find out late."""
    if has_unused_text:
        warnings.warn(f"the sets have texts, and documents are of {facts.orders[0]}. See --order.", stacklevel=3)
    if has_read and facts.only_read and facts.format != "parquet":
        warnings.warn(
            f"ids {_said(facts.only_read)} are read and never written (role understanding), and {facts.format} has no "
            "place for a mask: leave them out of the loss (pack.json: only_read), or pack --to parquet with labels.",
            stacklevel=3,
        )
    if facts.format == "megatron" and facts.length is not None and not has_pad:
        warnings.warn(
            "the text tokenizer has no padding token, so rows are padded with its eos, which Megatron's loss counts as "
            "text. Leave --length out: Megatron packs documents itself.",
            stacklevel=3,
        )


def _said(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{first} to {beyond - 1}" for first, beyond in ranges)


def is_read(ids: np.ndarray, facts: Facts) -> np.ndarray:
    """True where an id of a row (N,) is of what a model only reads."""
    found = np.zeros(ids.shape, dtype=bool)
    for first, beyond in facts.only_read:
        found |= (ids >= first) & (ids < beyond)
    for start, end in facts.read_items:
        found |= np.cumsum(ids == start) > np.cumsum(ids == end)
    return found


def _counted(documents: Iterable[Document], facts: Facts) -> Iterator[Document]:
    for document in documents:
        facts.documents += 1
        facts.tokens += document.ids.size
        yield document


def plain(documents: Iterable[Document]) -> Iterator[Row]:
    """A row for each document."""
    for document in documents:
        yield Row(document.ids, (document.ids.shape[-1],), (document.key,))


def fill(documents: Iterable[Document], facts: Facts, long: Long) -> Iterator[Row]:
    """Rows of `facts.length` ids: a row that is full, or the fullest of more than `OPEN`, and the rest at the end."""
    length = facts.length
    assert length is not None
    rows: list[list[Document]] = []
    free: list[int] = []
    for document in documents:
        if document.ids.shape[-1] > length:
            facts.long += 1
            if long == "drop":
                facts.dropped += 1
                facts.tokens -= document.ids.size
                continue
        for begin in range(0, document.ids.shape[-1], length):
            part = Document(document.key, document.ids[..., begin : begin + length])
            size = part.ids.shape[-1]
            fitting = [(room, at) for at, room in enumerate(free) if room >= size]
            if fitting:
                at = min(fitting)[1]
            else:
                at = len(rows)
                rows.append([])
                free.append(length)
            rows[at].append(part)
            free[at] -= size
            if not free[at] or len(rows) > OPEN:
                at = min(range(len(rows)), key=lambda one: (free[one], one))
                free.pop(at)
                yield _padded(rows.pop(at), length, facts.pad)
    for row in rows:
        yield _padded(row, length, facts.pad)


def _padded(parts: Sequence[Document], length: int, pad: int) -> Row:
    joined = np.concatenate([part.ids for part in parts], axis=-1)
    ids = np.full((*joined.shape[:-1], length), pad, dtype=np.int64)
    ids[..., : joined.shape[-1]] = joined
    return Row(ids, tuple(part.ids.shape[-1] for part in parts), tuple(part.key for part in parts))


def _refuse(to: str, length: int | None) -> None:
    if to not in FORMATS:
        raise ValueError(f"there is no format '{to}'. Known: {', '.join(FORMATS)}.")
    if length is not None and length < 2:
        raise ValueError(f"--length={length} must be at least 2.")
    if to == "litdata" and length is None:
        raise ValueError("litdata cuts one stream of ids into blocks: give --length, and the same block_size to read.")


def needs(to: str) -> Any:
    """The package that a format is written by, imported.

    Raises:
        ValueError: it is not installed.
    """
    package = {"parquet": "pyarrow", "litdata": "litdata"}[to]
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(f"--to {to} needs {package}. Install it: pip install 'mmtok[tokens]'.") from error
