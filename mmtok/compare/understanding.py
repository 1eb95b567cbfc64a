"""Understanding: what linear models and neighbours read off values, and a small transformer off ids, of labels.

All look at the training set and are read on the held-out one; beside them the same two readers of the input itself
(pixels or samples in pieces as large as one position), and the share of the most frequent class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.compare.asked import check_asked
from mmtok.compare.files import write_json
from mmtok.compare.tokens import Tokens
from mmtok.evaluation.token_probe import fit

LINEAR = 4096
"""Numbers of an input at most that a linear model is given one by one."""
NEIGHBOURS = 10
"""Training items that vote on the label of one."""


@dataclass(frozen=True)
class ReaderConfig:
    """The fixed transformer and its training."""

    width: int = 128
    """Channels."""
    depth: int = 2
    """Layers."""
    heads: int = 4
    """Attention heads."""
    steps: int = 400
    """Updates."""
    batch: int = 64
    """Items of an update."""
    lr: float = 1e-3
    """Peak of a cosine."""
    dropout: float = 0.1
    """Of the layers, and of whole positions."""
    most: int = 1024
    """Positions read at most, the first ones."""

    def __post_init__(self) -> None:
        check_asked(self, zero=("dropout",))


@dataclass(frozen=True)
class Understanding:
    """Accuracies on held-out items."""

    linear: float
    """Of a linear model on values."""
    neighbours: float
    """Of nearest neighbours by values: what lies together without anything that was trained for the labels."""
    transformer: float | None
    """Of a small transformer on ids; None where there are none."""
    chance: float
    classes: int
    samples: int


class Reader(nn.Module):
    """Positions (N, T, width) -> classes (N, classes), by a transformer and a mean over positions."""

    def __init__(self, embed: nn.Module, length: int, classes: int, config: ReaderConfig) -> None:
        super().__init__()
        self.embed, self.drop = embed, config.dropout
        self.places = nn.Parameter(0.02 * torch.randn(length, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 2 * config.width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, config.depth, nn.LayerNorm(config.width), enable_nested_tensor=False)
        self.head = nn.Linear(config.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Items as `embed` takes them, -1 (or NaN) at positions without anything."""
        absent = _absent(x)
        h = self.embed(x) + self.places[: absent.shape[1]]
        if self.training and self.drop:
            absent = absent | (torch.rand(absent.shape, device=x.device) < self.drop)
        absent = absent & ~absent.all(1, keepdim=True)  # an item of nothing is read as it is
        kept = (~absent)[..., None]
        return self.head((self.body(h, src_key_padding_mask=absent) * kept).sum(1) / kept.sum(1))


def _absent(x: Tensor) -> Tensor:
    """Positions without anything (N, T), of ids (N, L, T) or of pieces (N, T, F)."""
    return x[..., 0].isnan() if x.is_floating_point() else x[:, 0] < 0


def _trimmed(x: Tensor) -> Tensor:
    """Items without the positions that none of them has: the longest of all is many times the usual one."""
    used = int((~_absent(x)).any(0).cumsum(0).argmax()) + 1
    return x.narrow(1 if x.is_floating_point() else 2, 0, used)


class CodesEmbedding(nn.Module):
    """Ids (N, L, T) -> (N, T, width): the sum of an embedding a level."""

    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        for level in self.levels:
            nn.init.normal_(level.weight, std=0.02)  # type: ignore[arg-type]

    def forward(self, ids: Tensor) -> Tensor:
        parts = [level(ids[:, i].clamp(min=0)) * (ids[:, i] >= 0)[..., None] for i, level in enumerate(self.levels)]
        return torch.stack(parts).sum(0)


class PiecesEmbedding(nn.Linear):
    """Pieces of the input (N, T, F), NaN where there is none -> (N, T, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.nan_to_num())


def understand(
    train: Tokens, held_out: Tokens, sizes: tuple[int, ...], config: ReaderConfig | None = None, *, seed: int = 0
) -> Understanding | None:
    """Read labels off codes; None where fewer than two classes are labelled in both sets."""
    config = config or ReaderConfig()
    labelled = known_labels(train.labels, held_out.labels)
    if labelled is None:
        return None
    (a, b), (y, target), classes = labelled
    transformer = None
    if sizes:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            embed = CodesEmbedding(sizes, config.width)
            transformer = read(embed, train.ids[a], y, held_out.ids[b], target, classes, config)
    return Understanding(
        linear(train.values[a], y, held_out.values[b], target),
        nearest(train.values[a], y, held_out.values[b], target),
        transformer,
        chance=float(target.bincount().max()) / len(target),
        classes=classes,
        samples=len(target),
    )


def raw_understanding(
    train: Iterable[Mapping[str, Any]],
    held_out: Iterable[Mapping[str, Any]],
    labels: tuple[Tensor, Tensor],
    downsample: int,
    config: ReaderConfig,
    *,
    seed: int,
    cache: Path,
) -> dict[str, float]:
    """The same two readers of the input itself: what no tokenizer stands between.

    Args:
        train: batches with "x" and, where padded, "lengths".
        held_out: others.
        labels: of both, (N,) and (M,), -1 where unknown.
        downsample: pixels (a side) or samples of a piece, as of one position.
        config: of the transformer.
        seed: of it.
        cache: folder for what was found, since it is one answer for all arms of a size of piece.
    """
    known = known_labels(*labels)
    assert known is not None
    (a, b), (y, target), classes = known
    x, unseen = (_pieces(batches, len(of), downsample) for batches, of in zip((train, held_out), labels, strict=True))
    x, unseen = x[a], unseen[b]
    # What arms see of the same items may differ, as in size or in the rate of samples.
    inputs = [[*one.shape, float(one.double().sum()), float(one.double().square().sum())] for one in (x, unseen)]
    said = hashlib.sha256(json.dumps([asdict(config), inputs, seed, y.tolist(), target.tolist()]).encode())
    path = cache / f"{said.hexdigest()[:16]}.json"
    if path.is_file():
        found: dict[str, float] = json.loads(path.read_text())
        return found
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = read(PiecesEmbedding(x.shape[2], config.width), x, y, unseen, target, classes, config)
    found = {
        "raw_linear_accuracy": linear(_summary(x), y, _summary(unseen), target),
        "raw_transformer_accuracy": transformer,
    }
    write_json(path, found)
    return found


def _pieces(batches: Iterable[Mapping[str, Any]], count: int, size: int) -> Tensor:
    """Inputs in pieces as large as a position, (N, T, F), NaN behind shorter ones."""
    parts: list[Tensor] = []
    for batch in batches:
        x = batch["x"].float()
        if x.ndim == 4:
            x = F.pad(x, (0, -x.shape[3] % size, 0, -x.shape[2] % size))
            parts.append(F.unfold(x, size, stride=size).transpose(1, 2))
        else:
            lengths = batch.get("lengths", torch.full((len(x),), x.shape[2]))
            inside = torch.arange(x.shape[2]) < lengths[:, None]
            x = F.pad(x.where(inside[:, None], torch.nan), (0, -x.shape[2] % size), value=torch.nan)
            piece = x.unflatten(2, (-1, size)).permute(0, 2, 1, 3).flatten(2)
            # A piece that is cut by the end counts, with zeros behind it.
            whole = piece.nan_to_num()
            parts.append(whole.where(~piece.isnan().all(2, keepdim=True), torch.nan))
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1]), value=torch.nan) for part in parts])[:count]


def _summary(x: Tensor) -> Tensor:
    """Pieces (N, T, F) -> what a linear model is given: all of them, or their mean and deviation where that is much."""
    if x.isnan().any() or x[0].numel() > LINEAR:
        kept = (~x.isnan()).float()
        count = kept.sum(1).clamp(min=1)
        mean = x.nan_to_num().sum(1) / count
        return torch.cat([mean, ((x.nan_to_num() - mean[:, None]).square() * kept).sum(1).div(count).sqrt()], 1)
    return x.flatten(1)


def known_labels(train: Tensor, held_out: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int] | None:
    """Which items of both sets are labelled, and their classes from 0; None where nothing can be learned of them."""
    classes = train[train >= 0].unique()
    a, b = train >= 0, torch.isin(held_out, classes)
    if len(classes) < 2 or not bool(b.any()):
        return None
    return (a, b), (torch.searchsorted(classes, train[a]), torch.searchsorted(classes, held_out[b])), len(classes)


def linear(x: Tensor, y: Tensor, unseen: Tensor, target: Tensor) -> float:
    """Accuracy of multinomial logistic regression on features (N, F), standardised by the training set."""
    x, unseen = _standardised(x, unseen)
    weight, bias = fit(x, y, int(y.max()) + 1)
    return float(((unseen @ weight + bias).argmax(1) == target).float().mean())


def nearest(x: Tensor, y: Tensor, unseen: Tensor, target: Tensor, count: int = NEIGHBOURS) -> float:
    """Accuracy of the nearest training items by cosine of the same features, each with its similarity as its vote."""
    x, unseen = (F.normalize(one, dim=1) for one in _standardised(x, unseen))
    weight, which = (unseen @ x.T).topk(min(count, len(x)), dim=1)
    votes = torch.zeros(len(unseen), int(y.max()) + 1).scatter_add_(1, y[which], weight.clamp(min=1e-6))
    return float((votes.argmax(1) == target).float().mean())


def _standardised(x: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, F) and (M, F), of mean 0 by the former, which have rows of about unit length."""
    mean, scale = x.mean(0), x.var(0, correction=0).sqrt().clamp(min=1e-6) * x.shape[1] ** 0.5
    return (x - mean) / scale, (unseen - mean) / scale


def read(
    embed: nn.Module, x: Tensor, y: Tensor, unseen: Tensor, target: Tensor, classes: int, config: ReaderConfig
) -> float:
    """Accuracy of the transformer. Draws from the global generator: the caller seeds it."""
    axis = 1 if x.is_floating_point() else 2
    length = min(config.most, max(x.shape[axis], unseen.shape[axis]))
    x, unseen = x.narrow(axis, 0, min(length, x.shape[axis])), unseen.narrow(axis, 0, min(length, unseen.shape[axis]))
    model = Reader(embed, length, classes, config)
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=0.05)
    # With ten updates or fewer a tenth of them is none: the rate then falls from its peak, over two at least.
    rises, total = (0.1 if config.steps > 10 else 0.0), max(2, config.steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=total, pct_start=rises)
    order = torch.cat([torch.randperm(len(y)) for _ in range(-(-config.steps * config.batch // len(y)))])
    for rows in order.split(config.batch)[: config.steps]:
        loss = F.cross_entropy(model(_trimmed(x[rows])), y[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        right = [
            (model(_trimmed(part)).argmax(1) == goal)
            for part, goal in zip(unseen.split(256), target.split(256), strict=True)
        ]
    return float(torch.cat(right).float().mean())
