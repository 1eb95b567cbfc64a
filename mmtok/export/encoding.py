"""Shards of signals -> shards of codes, on one device: the encoder alone, and no step waits for another.

Processes decode ahead, this one encodes, a thread turns codes into members and writes. A shard appears whole (tar and
index, then its record) or not at all, and depends on nothing but its samples and the options: a job that is killed and
started again leaves the same bytes as one that was not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from datamodules.shards import ShardSet
from datamodules.stream import loader
from mmtok.codes import Codes
from mmtok.export.bundle import spec_of
from mmtok.export.token_output import Claims, Output, Progress
from mmtok.export.token_plan import Plan
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.export.token_spec import TokenSpec
from mmtok.export.tokenize_input import Block, Gatherer, Preparer, out_of_memory
from mmtok.export.tokenize_units import ShardUnits, Unit
from mmtok.loading import load
from mmtok.tokenizers import pixels
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.budget import Budget, budget_of
from mmtok.tokenizers.chunks import LONG, Chunked
from mmtok.tokenizers.exported import PARTS, Absent, leave_out
from mmtok.tokenizers.subword import SubwordTokenizer

AHEAD = 4
"""Batches whose codes wait to be turned into members."""
KEPT = ("txt", "cls")
"""Members that go along by default."""


@dataclass(frozen=True)
class Settings:
    """What is tokenized, with what, and how."""

    tokenizer: str
    shards: str
    out: Path
    size: str = "own"
    """Of pictures: "own", "fit" for what the tokenizer was trained on, or a side."""
    batch: int = 32
    """Pictures of the trained size, or sounds of ten seconds, in a batch."""
    budget: str | int | None = None
    """How much of a code to keep, as `budget_of` reads it: a number of levels, or "psnr=30"."""
    keep: tuple[str, ...] | None = None
    """Members of the source that go along; None for `KEPT`, where there are any."""
    raw: bool = False
    """The weights as trained instead of their average."""
    workers: int = 1
    """Processes that decode for each device; 0 decodes between the batches."""
    cache_dir: str | None = None
    """Folder for remote shards."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Members that go along."""
        return KEPT if self.keep is None else self.keep

    def open(self) -> ShardSet:
        """The source."""
        return ShardSet.open(self.shards, cache_dir=self.cache_dir)


class Encoder:
    """A tokenizer on a device, without its decoder unless a budget needs it."""

    def __init__(self, tokenizer: Tokenizer, device: str, budget: str | int | None = None) -> None:
        """Take the tokenizer over: its decoder is gone afterwards."""
        self.device, self.budget = device, budget_of(budget)
        self.tokenizer = tokenizer.to(device).optimize()
        self.chunked = self._chunks()  # while there is a decoder, at which chunks look too
        if not (isinstance(self.budget, Budget) and self.budget.decodes):
            leave_out(self.tokenizer, "encoder")
            leave_out(tokenizer, "encoder")

    def _chunks(self) -> Chunked | None:
        """For sounds that would take too much memory; only where chunks give the codes of the whole."""
        whole = not isinstance(self.tokenizer.networks.decoder, Absent)
        if not whole or not isinstance(self.tokenizer, AudioTokenizer) or not Chunked.possible(self.tokenizer):
            return None
        chunked = Chunked(self.tokenizer)
        return None if chunked.approximate else chunked

    def __call__(self, x: torch.Tensor, lengths: torch.Tensor | None) -> Codes:
        """A batch -> its codes, on the CPU."""
        x = x.to(self.device, non_blocking=True)
        if lengths is None:
            return self.tokenizer.encode(pixels.to_unit(x), budget=self.budget).to("cpu")
        assert isinstance(self.tokenizer, AudioTokenizer)
        if (
            self.chunked
            and not isinstance(self.budget, Budget)
            and len(x) == 1
            and x.shape[2] > LONG * self.tokenizer.config.sample_rate
        ):
            return self.chunked.encode(x, budget=self.budget).to("cpu")
        return self.tokenizer.encode(x, lengths.to(self.device), budget=self.budget).to("cpu")


def open_tokenizer(settings: Settings) -> tuple[Tokenizer, TokenSpec]:
    """The tokenizer, and its contract: a bundle's own, or what its export would say.

    Raises:
        ValueError: there is none, it has no codes or no encoder, or the bundle's files do not belong together.
    """
    tokenizer = load(settings.tokenizer, raw=settings.raw)
    if isinstance(tokenizer, SubwordTokenizer):
        raise ValueError(
            f"{settings.tokenizer} is a vocabulary of text, and mmtok pack takes texts as they are. Run: mmtok export "
            f"{settings.tokenizer} OUT; mmtok vocab merge --base OUT -o VOCAB; mmtok pack {settings.shards} "
            "--vocab VOCAB --order text"
        )
    if not tokenizer.quantizer.codebook_sizes:
        raise ValueError(f"{settings.tokenizer} was trained without codes, so there are none to write.")
    encoder = tokenizer.networks.encoder
    if isinstance(encoder, Absent):
        raise ValueError(f"{settings.tokenizer} was exported without its {PARTS['decoder'][0]}. Use a whole bundle.")
    own = Path(settings.tokenizer) / TOKEN_SPEC
    spec = TokenSpec.read(own) if own.is_file() else spec_of(tokenizer, "", {})
    if spec.fingerprint != tokenizer.fingerprint():
        raise ValueError(
            f"{own} is of the tokenizer {spec.fingerprint}, and the weights are {tokenizer.fingerprint()}."
        )
    budget = budget_of(settings.budget)  # refused now, and not in the first batch
    if isinstance(budget, Budget):
        budget.check(tokenizer)
    else:
        tokenizer.kept_levels(1, budget)
    return tokenizer, spec


def plan_of(settings: Settings, tokenizer: Tokenizer, spec: TokenSpec, source: ShardSet) -> Plan:
    """What the folder of the codes remembers."""
    return Plan(
        tokenizer=settings.tokenizer,
        fingerprint=tokenizer.fingerprint(),
        spec_sha256=spec.sha256,
        source=source.name(2),
        source_fingerprint=source.manifest.fingerprint,
        size=settings.size,
        batch=settings.batch,
        budget=settings.budget,
        keep=settings.kept,
    )


def encode_shards(settings: Settings, device: str, shards: Sequence[int], report: Callable[[Progress], None]) -> None:
    """Tokenize some shards, one after the other.

    Args:
        settings: as the folder's plan has them.
        device: where to compute.
        shards: numbers in the source.
        report: told what happened, now and then.

    Raises:
        ValueError: the tokenizer cannot be used.
        OSError: the folder cannot be written.
    """
    tokenizer, spec = open_tokenizer(settings)
    source = settings.open()
    prepare = Preparer.of(tokenizer, settings.size, settings.batch)
    encoder = Encoder(tokenizer, device, settings.budget)
    claims = Claims(settings.out, [source.manifest.shards[shard].name for shard in shards], spec)
    # The workers first: one that outlives this process must not hold its locks.
    units = iter(loader(ShardUnits(source, shards, prepare, settings.kept, claims.said), settings.workers))
    with claims, ThreadPoolExecutor(1) as thread:
        pending: deque[Future[Progress]] = deque()
        output, gather = claims.next(), Gatherer(prepare)
        while True:
            begin = time.perf_counter()
            unit = _next(units)
            ready = time.perf_counter()
            if unit is None:
                break
            if output.wanted:
                output.note(unit)
            if output.wanted:
                for codes, numbers in _encoded(encoder, gather, unit, output):
                    pending.append(thread.submit(output.add, codes, numbers))
            if unit.last:
                pending.append(thread.submit(output.close))
                # What waits of a shard that failed must not get into the next one.
                output, gather = claims.next(), Gatherer(prepare)
            report(Progress(wait=ready - begin, seconds=time.perf_counter() - begin))
            while len(pending) > AHEAD:
                report(pending.popleft().result())
        for future in pending:
            report(future.result())


def _next(units: Iterator[Unit]) -> Unit | None:
    try:
        return next(units, None)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ValueError(
            "a process that decodes ended by itself, mostly for want of memory. Give fewer --workers: the same command "
            "continues, with the same codes."
        ) from error


def _encoded(encoder: Encoder, gather: Gatherer, unit: Unit, output: Output) -> Iterator[tuple[Codes, list[int]]]:
    """Codes of the batches that a unit fills, and the numbers of their samples.

    Want of memory fails the shard alone. Half of the batch at a time would fit, and could give other codes where two
    are equally good but for rounding: then a shard would depend on who else used the device.
    """
    batch: Block | None = None
    try:
        for batch in gather.gathered(unit.blocks, unit.last):
            yield encoder(batch.x, batch.lengths), batch.numbers
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        output.failed = _too_large(batch, gather.prepare, output, encoder.device)
    if output.failed and encoder.device.startswith("cuda"):  # the error held on to what was computed
        torch.cuda.empty_cache()


def _too_large(batch: Block | None, prepare: Preparer, output: Output, device: str) -> str:
    if batch is None:
        return "out of memory between batches. Give the same command again, with fewer --workers."
    key, size = output.samples[batch.numbers[0]][0], prepare.size_of(batch.x)
    smaller = "a smaller --size" if prepare.modality == "image" else "shorter sounds (mmtok shards build cuts them)"
    if len(batch.numbers) == 1:
        return (
            f"{key} ({size}) does not fit the memory of {device}. Take a larger device, or {smaller}, and another OUT."
        )
    return (
        f"{len(batch.numbers)} samples of {size}, {key} first, do not fit the memory of {device} together. Take a "
        f"larger device, or a lower --batch or {smaller}, and another OUT: codes depend on them."
    )
