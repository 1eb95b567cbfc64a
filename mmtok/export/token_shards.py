"""Shards of codes: what `mmtok tokenize` writes and `mmtok pack` reads. Raw codes, from 0 at each level, as they came.

A shard set (`datamodules.shards`, so plain WebDataset tars) with a tar for each tar of its source, of the same name and
in the same order, and per sample

    KEY.codes.npy   (levels, positions), uint16 where all ids fit, else int32
    KEY.codes.json  what they are of: the spec's hash, size of the source, grid, extras
    KEY.txt, ...    members of the source that were kept

Beside them `token_spec.json`, `tokens.json` (from what, with which options), and per shard NAME.record.json: its size,
its hash and the samples that could not be used. Ids of a vocabulary come later (`mmtok pack`): offsets that are baked
in here would have to be computed anew with the next vocabulary.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.decode import decode
from datamodules.manifest import MANIFEST, Manifest, Shard
from datamodules.shardindex import ShardError, ShardIndex, write_atomically
from datamodules.shards import ShardSet
from mmtok.codes import Codes
from mmtok.export.token_plan import PLAN
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab_map import Vocabulary

KIND = "tokens"
"""Of their manifests."""
CODES, FACTS = "codes.npy", "codes.json"
RECORD = ".record.json"
MEANING = (
    "modality", "codebook_sizes", "fingerprint", "downsample", "channels", "sample_rate", "length", "extras",
)  # fmt: skip
"""Fields of a spec on which codes depend; the others say how they are laid out, which raw codes leave open."""


def to_members(codes: Codes, item: int, spec: TokenSpec, sha256: str) -> dict[str, bytes]:
    """One item of a batch on the CPU as members of a sample.

    Args:
        codes: of the tokenizer with this spec.
        item: which.
        spec: of the tokenizer.
        sha256: the spec's own hash.

    Raises:
        ValueError: codes that a shard cannot hold.
    """
    ids = codes.ids[item, :, : int(codes.lengths[item])].numpy()
    kept = int((ids >= 0).all(axis=1).sum())
    if codes.scales is not None or (ids[:kept] < 0).any() or (ids[kept:] >= 0).any():
        raise ValueError("these codes have several scales, or are missing here and there; shards hold neither.")
    facts: dict[str, Any] = {"spec": sha256, "source_size": codes.source_size[item].tolist()}
    if codes.grid is not None:
        facts["grid"] = list(codes.grid)
    if codes.extras:
        facts["extras"] = {name: value[item].tolist() for name, value in sorted(codes.extras.items())}
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(ids[:kept].astype(id_type(spec))), allow_pickle=False)
    return {CODES: file.getvalue(), FACTS: json.dumps(facts, separators=(",", ":")).encode()}


def from_members(members: Mapping[str, bytes], spec: TokenSpec) -> Codes:
    """What `to_members` made, as a batch of one; fewer levels than the tokenizer has are its first ones.

    Raises:
        DecodeError: they are no codes.
    """
    ids = torch.from_numpy(decode("npy", members[CODES]).astype(np.int64))[None]
    facts = decode("json", members[FACTS])
    grid = facts.get("grid")
    extras = {name: torch.tensor(value)[None] for name, value in facts.get("extras", {}).items()}
    size = torch.tensor([facts["source_size"]], dtype=torch.int64)
    return Codes(ids, torch.tensor([ids.shape[2]]), size, grid=grid and (grid[0], grid[1]), extras=extras)


def id_type(spec: TokenSpec) -> type[np.generic]:
    """The smallest of two types for all codes of a tokenizer."""
    return np.uint16 if max(spec.codebook_sizes) <= 1 << 16 else np.int32


class TokenSet:
    """A finished set of codes, opened for reading."""

    def __init__(self, shards: ShardSet) -> None:
        """Take a shard set for one of codes.

        Raises:
            ValueError: it is of something else, or its spec was changed.
        """
        self.shards = shards
        if shards.manifest.kind != KIND:
            raise ValueError(f"{shards.home} holds {shards.manifest.kind}, no codes. Make some: mmtok tokenize.")
        self.spec = TokenSpec.read(Path(shards.home) / TOKEN_SPEC)
        self.sha256 = self.spec.sha256
        said = shards.manifest.provenance.get("spec_sha256")
        if said != self.sha256:
            raise ValueError(
                f"{shards.home} was made for the spec {said}, and its {TOKEN_SPEC} is {self.sha256}. Tokenize anew."
            )

    def codes(self, members: Mapping[str, bytes], key: str) -> Codes:
        """The codes of a sample.

        Raises:
            ShardError: there are none, or those of another tokenizer.
        """
        if not members.keys() >= {CODES, FACTS}:
            raise ShardError(f"{key} in {self.shards.home} holds {', '.join(members)}, and no codes.")
        said = decode("json", members[FACTS]).get("spec")
        if said != self.sha256:
            raise ShardError(f"{key} in {self.shards.home} is of another tokenizer (spec {said}). Tokenize anew.")
        return from_members(members, self.spec)


def laid_out(spec: TokenSpec, vocabulary: Vocabulary, where: str) -> TokenSpec:
    """The spec by which a vocabulary lays out codes of this one: the same, or one that differs in the layout alone.

    Raises:
        ValueError: the vocabulary was made for other codes; names what differs.
    """
    if any(known.sha256 == spec.sha256 for known in vocabulary.specs):
        return spec
    alike = [known for known in vocabulary.specs if spec.fingerprint and not _differing(known, spec)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        names = ", ".join(known.prefix for known in alike)
        raise ValueError(f"{where}: the vocabulary has these codes as {names}. Tokenize with the bundle that is meant.")
    same = [known for known in vocabulary.specs if known.modality == spec.modality]
    told = [f"'{known.prefix}' has {', '.join(_differing(known, spec) or ['no fingerprint'])}" for known in same]
    raise ValueError(
        f"{where} holds codes of another tokenizer (spec {spec.sha256[:16]}) than the vocabulary was made for: "
        f"{'; '.join(told) or f'it has none of {spec.modality}'}. Tokenize with its bundle, or merge it anew."
    )


def _differing(known: TokenSpec, spec: TokenSpec) -> list[str]:
    pairs = {name: (getattr(known, name), getattr(spec, name)) for name in MEANING}
    return [f"{name}={one!r}, not {other!r}" for name, (one, other) in pairs.items() if one != other]


@dataclass(frozen=True)
class Record:
    """What is known of a finished shard."""

    samples: int
    bytes: int
    sha256: str
    """Of the tar."""
    codes: int
    """Ids in it, over all levels."""
    bad: tuple[tuple[str, str], ...]
    """Key and reason of each sample that could not be used, in the order of the source."""

    def save(self, folder: Path, name: str) -> None:
        """Write it whole or not at all."""
        write_atomically(folder / f"{name}{RECORD}", (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path, name: str) -> Record | None:
        """The record of a shard; None where there is none that can be read."""
        try:
            found = json.loads((folder / f"{name}{RECORD}").read_text(encoding="utf-8"))
            bad = tuple((str(key), str(reason)) for key, reason in found["bad"])
            return cls(**{one.name: found[one.name] for one in fields(cls)} | {"bad": bad})
        except (OSError, ValueError, KeyError, TypeError):
            return None


def stands(folder: Path, name: str) -> Record | None:
    """The record of a shard whose tar and index are whole, by size and hash; None where it must be written."""
    record = Record.read(folder, name)
    tar, index = folder / f"{name}.tar", folder / f"{name}.idx"
    try:
        if record is None or tar.stat().st_size != record.bytes:
            return None
        opened = ShardIndex.open(index)
        with tar.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == record.sha256
    except (OSError, ShardError):
        return None
    return record if whole and opened.tar_bytes == record.bytes and len(opened) == record.samples else None


def missing(folder: Path, names: Sequence[str]) -> list[str]:
    """Shards without a record.

    Of two parts that end at once, one must see the other's records, or there would be no manifest. A network file
    system may answer from memory what a folder holds, until this machine changes something in it.
    """
    own = folder / f".{MANIFEST}.{secrets.token_hex(8)}"
    with suppress(OSError):
        own.touch()
        own.unlink()
    found = {file.name for file in folder.iterdir()}
    return [name for name in names if f"{name}{RECORD}" not in found]


def finish(folder: Path, source: Manifest, names: Sequence[str]) -> Manifest:
    """Write the manifest over the records of all shards: whoever comes last does, and two write the same.

    Raises:
        ValueError: a record cannot be read, or its shard is not there in the size it had.
    """
    shards, bad, codes, extensions = [], 0, 0, set()
    for name in names:
        record = Record.read(folder, name)
        if record is None:
            raise ValueError(f"{folder / (name + RECORD)} cannot be read. Give the same command again.")
        _check_size(folder, name, record)
        shards.append(Shard(name=name, samples=record.samples, bytes=record.bytes, sha256=record.sha256))
        bad, codes = bad + len(record.bad), codes + record.codes
        extensions |= set(ShardIndex.open(folder / f"{name}.idx").extensions)
    manifest = Manifest(
        kind=KIND,
        split=source.split,
        extensions=tuple(sorted(extensions)),
        classes=source.classes,
        source=source.source,
        licence=source.licence,
        provenance=json.loads((folder / PLAN).read_text(encoding="utf-8")) | {"codes": codes, "bad": bad},
        shards=tuple(shards),
    )
    manifest.save(folder)
    return manifest


def _check_size(folder: Path, name: str, record: Record) -> None:
    """Refuse a shard that was cut or lost since; whoever has the part computes hashes too."""
    try:
        size, index = (folder / f"{name}.tar").stat().st_size, ShardIndex.open(folder / f"{name}.idx")
        whole = size == index.tar_bytes == record.bytes and len(index) == record.samples
    except (OSError, ShardError):
        whole = False
    if not whole:
        raise ValueError(
            f"{folder / name}.tar is not as it was written, so there is no manifest. Give the command of its part "
            "again; it writes the shard anew."
        )
