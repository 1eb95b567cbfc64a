"""Generability: how many bits a sample costs under one small autoregressive model, the same for every tokenizer.

What a language model pays for a tokenizer is not log2 of its codebook's size but what is left of it once the tokens
before are known. The model is fixed (width, depth, steps, rate, samples seen), so that a table of many tokenizers asks
one question; its embedding and its heads alone grow with the codebook. It is small: bits are an upper bound, to be
compared within a table, and no claim about large models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmtok.compare.asked import check_asked

LOGITS = 1 << 24
"""Numbers of logits that are held at a time."""


@dataclass(frozen=True)
class PriorConfig:
    """The fixed model and its training."""

    width: int = 128
    """Channels."""
    depth: int = 4
    """Layers."""
    heads: int = 4
    """Attention heads."""
    steps: int = 400
    """Updates."""
    batch: int = 32
    """Sequences of an update."""
    lr: float = 1e-3
    """Peak of a cosine, after a tenth of the updates."""
    most: int = 1024
    """Tokens of a sequence at most; longer items are cut into pieces of so many."""
    samples: int = 10_000
    """Items of the training set at most."""

    def __post_init__(self) -> None:
        check_asked(self)


@dataclass(frozen=True)
class PriorResult:
    """What the model found of held-out items."""

    bits_per_sample: float
    """Cross-entropy of all tokens of an item, in bits; mean over held-out items."""
    bits_per_token: float
    uniform_bits: float
    """What a sample costs at log2 of the codebook's size a token."""
    unigram_bits: float
    """What it costs by how often each code of a level occurs in the training set, one added to each count."""
    tokens_per_sample: float
    flops_per_sample: float
    """Multiplications and additions to score or to generate one item (with a cache of keys), heads included."""
    train_bits_per_token: float
    """Mean of the last tenth of the updates."""


def flat(ids: Tensor) -> Tensor:
    """(N, L, T) -> (N, T * L): all levels of a position before the next position."""
    return ids.transpose(1, 2).flatten(1)


class Prior(nn.Module):
    """A decoder-only transformer over flat sequences of codes (N, S); token s is of level s mod L."""

    mask: Tensor

    def __init__(self, sizes: tuple[int, ...], length: int, config: PriorConfig) -> None:
        super().__init__()
        width, self.sizes, self.layers = config.width, sizes, config.depth
        self.offsets = [sum(sizes[:level]) for level in range(len(sizes))]
        self.start = nn.Parameter(torch.zeros(width))
        self.codes = nn.Embedding(sum(sizes), width)
        self.places = nn.Parameter(torch.zeros(length, width))
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.places, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, config.depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        mask = torch.full((length, length), -math.inf).triu(1)
        self.register_buffer("mask", mask)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, S), -1 where there is none -> nats of each (N, S), 0 where there is none."""
        levels, length = len(self.sizes), tokens.shape[1]
        offsets = torch.tensor(self.offsets, device=tokens.device).repeat(length // levels + 1)[:length]
        embedded = self.codes(tokens.clamp(min=0) + offsets)
        x = torch.cat([self.start.expand(len(tokens), 1, -1), embedded[:, :-1]], 1) + self.places[:length]
        hidden = self.body(x, mask=self.mask[:length, :length], is_causal=True)
        nats = torch.empty(tokens.shape, device=tokens.device)
        for level, head in enumerate(self.heads):
            nats[:, level::levels] = _nats(head, self.sizes[level], hidden[:, level::levels], tokens[:, level::levels])
        return nats.where(tokens >= 0, 0.0)

    def flops(self, length: int) -> float:
        """Of one sequence."""
        block = sum(parameter.numel() for parameter in self.body.parameters())
        width = self.start.numel()
        heads = width * sum(self.sizes) * length / len(self.sizes)
        return 2.0 * (block * length + heads) + 2.0 * self.layers * width * length * (length + 1)


def _nats(head: nn.Module, size: int, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropies, some rows at a time: the logits of 65,536 codes are not kept for the way back."""

    def some(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(head(rows), wanted, reduction="none", ignore_index=-1)

    rows = max(1, LOGITS // size)
    parts = zip(hidden.flatten(0, 1).split(rows), tokens.flatten().split(rows), strict=True)
    return torch.cat([checkpoint(some, x, y, use_reentrant=False) for x, y in parts]).view(tokens.shape)


def measure_prior(
    train: Tensor,
    held_out: Tensor,
    sizes: tuple[int, ...],
    config: PriorConfig | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> PriorResult:
    """Train the model on some items and read it on others.

    Args:
        train: codes (N, L, T) of training items, -1 where there is none.
        held_out: codes (M, L, T) of others.
        sizes: of the codebook of each level.
        config: the model; the fixed one by default.
        seed: of weights and order.
        device: where to compute.
    """
    config = config or PriorConfig()
    levels = len(sizes)
    cut = max(levels, config.most // levels * levels)
    seen, unseen = _pieces(flat(train), cut), _pieces(flat(held_out), cut)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Prior(sizes, max(seen.shape[1], unseen.shape[1]), config).to(device)
    last = _fit(model, seen, config, seed, device)
    lengths = (unseen >= 0).sum(1)
    total, counted = 0.0, int(lengths.sum())
    model.eval()
    with torch.no_grad():
        for part in unseen[lengths.argsort()].split(config.batch):  # those of a batch are about as long
            total += float(model(_trimmed(part, levels).to(device)).double().sum())
    bits, items = total / math.log(2), len(held_out)
    per_sample = counted / items
    return PriorResult(
        bits_per_sample=bits / items,
        bits_per_token=bits / counted,
        uniform_bits=sum(
            math.log2(size) * int((held_out[:, level] >= 0).sum()) for level, size in enumerate(sizes)
        ) / items,
        unigram_bits=_unigram(train, held_out, sizes) / items,
        tokens_per_sample=per_sample,
        flops_per_sample=sum(map(model.flops, lengths.tolist())) / items,
        train_bits_per_token=last,
    )  # fmt: skip


def _pieces(tokens: Tensor, length: int) -> Tensor:
    """(N, S) -> (N', length) where items are longer, without pieces of nothing."""
    if tokens.shape[1] <= length:
        return tokens
    tokens = F.pad(tokens, (0, -tokens.shape[1] % length), value=-1).unflatten(1, (-1, length)).flatten(0, 1)
    return tokens[(tokens >= 0).any(1)]


def _trimmed(batch: Tensor, levels: int) -> Tensor:
    """A batch without the positions that none of its items has: the longest of all is many times the usual one."""
    used = int((batch >= 0).any(0).cumsum(0).argmax()) + 1
    return batch[:, : used + -used % levels]


def _fit(model: Prior, tokens: Tensor, config: PriorConfig, seed: int, device: torch.device | str) -> float:
    """Train; returns bits a token of the last tenth of the updates."""
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, betas=(0.9, 0.95), weight_decay=0.01)
    warm = max(1, config.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1, step / config.steps))),
    )
    model.train()
    ends = []
    for batch in _batches(tokens, config, seed):
        batch = _trimmed(batch, len(model.sizes))
        nats = model(batch.to(device))
        loss = nats.sum() / (batch >= 0).sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ends.append(loss.detach())
    tail = ends[-max(1, config.steps // 10) :]
    return float(torch.stack(tail).mean()) / math.log(2)


def _batches(tokens: Tensor, config: PriorConfig, seed: int) -> Iterator[Tensor]:
    """As many as there are updates, over permutations of the items."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(config.steps):
        while len(order) < config.batch:
            order = torch.cat([order, torch.randperm(len(tokens), generator=generator)])
        yield tokens[order[: config.batch]]
        order = order[config.batch :]


def _unigram(train: Tensor, held_out: Tensor, sizes: tuple[int, ...]) -> float:
    """Bits of all held-out items."""
    total = 0.0
    for level, size in enumerate(sizes):
        seen, unseen = (ids[:, level].flatten() for ids in (train, held_out))
        counts = torch.bincount(seen[seen >= 0], minlength=size).double() + 1
        bits = -(counts / counts.sum()).log2()
        total += float(bits[unseen[unseen >= 0]].sum())
    return total
