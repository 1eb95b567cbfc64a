"""What codes of clips know of labels (the digit, the speaker), by a linear model trained on some clips for the others.

Reconstruction does not predict what a language model can do with tokens: codecs that sound best can be the worst to
read (DASB, arXiv 2406.14294). Two readings of a clip, both without order in time: `tokens`, how often each code of each
level occurs; `values`, mean and deviation over time of what the codes decode to, which also exists without codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.evaluation.audio_quality import groups_of
from mmtok.evaluation.probe import histograms
from mmtok.tokenizers.base import Tokenizer, evaluating

GROUP = "speaker"
"""Labels of this name keep the clips of one speaker together: what is tested on was never heard in training."""
FOLDS = 6
PENALTY = 1e-4

DEFINITION = (
    f"accuracy of multinomial logistic regression on features of whole clips, penalty {PENALTY:g} on the squared "
    f"weights, trained to convergence on all folds but one and tested on that one, over at most {FOLDS} folds; no clip "
    "of a speaker is in two folds, except where the speaker is what is predicted; chance is the most frequent class"
)


@dataclass(frozen=True)
class ClipFeatures:
    """What a linear model is given of N clips."""

    tokens: Tensor | None
    """(N, columns) roots of the relative frequencies of codes; None without codes."""
    values: Tensor
    """(N, 2 D) mean and standard deviation over time."""
    keys: tuple[str, ...]
    labels: tuple[int, ...]
    """Of the set itself; -1 where unknown."""


@dataclass(frozen=True)
class TokenProbe:
    """Accuracies for one label."""

    tokens: float | None
    values: float
    chance: float
    samples: int
    classes: int
    folds: int


@torch.inference_mode()
def clip_features(
    tokenizer: Tokenizer,
    loader: Iterable[Mapping[str, Any]],
    device: torch.device | str = "cpu",
    max_samples: int | None = None,
) -> ClipFeatures:
    """Encode the clips of a loader, each as if it were alone.

    Args:
        tokenizer: moved to the device.
        loader: batches with "x" (B, C, S) in [-1, 1], "key", and where there are some "lengths" and "label".
        device: where to compute.
        max_samples: clips at most, the first of the loader.

    Raises:
        ValueError: the loader gave no clip.
    """
    tokenizer.to(device)
    keys: list[str] = []
    labels: list[int] = []

    def noted() -> Iterable[Mapping[str, Any]]:
        for batch in loader:
            keys.extend(batch["key"])
            labels.extend(batch["label"].tolist() if "label" in batch else [-1] * len(batch["x"]))
            yield batch

    ids: list[Tensor] = []
    values: list[Tensor] = []
    numbers: list[int] = []
    with evaluating(tokenizer):
        for group in groups_of(noted(), torch.device(device), max_samples):
            latents = tokenizer.embed(group.x)
            out = tokenizer.quantizer(latents.z, latents.mask, grid=latents.grid)
            ids.append(out.ids.cpu())
            deviation = out.values.float().var(1, correction=0).sqrt()
            values.append(torch.cat([out.values.float().mean(1), deviation], 1).cpu())
            numbers += group.numbers
    if not numbers:
        raise ValueError("There is nothing to probe: the loader gave no clip. Check the shards.")
    order = torch.tensor(numbers).argsort()
    found = [numbers[place] for place in order.tolist()]
    longest = max(part.shape[2] for part in ids)
    codes = torch.cat([F.pad(part, (0, longest - part.shape[2]), value=-1) for part in ids])[order]
    return ClipFeatures(
        histograms(codes) if codes.shape[1] else None,
        torch.cat(values)[order],
        tuple(keys[number] for number in found),
        tuple(labels[number] for number in found),
    )


def targets_of(features: ClipFeatures, pattern: str) -> dict[str, list[str]]:
    """Labels by name: those that the keys hold, and the set's own where the keys hold none.

    Args:
        features: of the clips.
        pattern: a regular expression; each of its named groups is a label. It is searched in the keys.

    Raises:
        ValueError: neither says anything of two classes.
    """
    found = [re.search(pattern, key) for key in features.keys]
    matched = [match for match in found if match is not None]
    targets: dict[str, list[str]] = {}
    if len(matched) == len(found):
        names = list(matched[0].groupdict())
        targets = {name: [str(match[name]) for match in matched] for name in names}
    elif min(features.labels) >= 0:
        targets = {"label": [str(label) for label in features.labels]}
    targets = {name: labels for name, labels in targets.items() if len(set(labels)) > 1}
    if not targets:
        raise ValueError(
            f"There is nothing to probe: the clips have no labels of two classes, and keys such as "
            f"'{features.keys[0]}' do not all match '{pattern}'. Give --probe-keys, a pattern with named groups."
        )
    return targets


def probe_clips(features: ClipFeatures, targets: Mapping[str, Sequence[str]]) -> dict[str, TokenProbe]:
    """How well each label is read off the clips' features."""
    results = {}
    for name, labels in targets.items():
        groups = targets.get(GROUP) if name != GROUP else None
        folds = split(labels, groups)
        classes = sorted(set(labels))
        y = torch.tensor([classes.index(label) for label in labels])
        results[name] = TokenProbe(
            None if features.tokens is None else accuracy(features.tokens, y, folds),
            accuracy(standardised(features.values), y, folds),
            chance=float(y.bincount().max()) / len(y),
            samples=len(y),
            classes=len(classes),
            folds=int(folds.max()) + 1,
        )
    return results


def split(labels: Sequence[str], groups: Sequence[str] | None = None) -> Tensor:
    """Fold of each clip (N,): by whole groups where there are two, else every class dealt out evenly."""
    if groups is not None and len(known := sorted(set(groups))) > 1:
        return torch.tensor([known.index(group) % FOLDS for group in groups])
    folds = min(FOLDS, len(labels))
    seen: dict[str, int] = {}
    dealt = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        dealt.append((seen[label] - 1) % folds)
    return torch.tensor(dealt)


def standardised(x: Tensor) -> Tensor:
    """(N, F) with zero mean and, all features together, rows of about unit length."""
    x = x - x.mean(0)
    return x / x.square().mean(0).sqrt().clamp(min=1e-6) / x.shape[1] ** 0.5


def accuracy(x: Tensor, y: Tensor, folds: Tensor) -> float:
    """Share of clips named right by a model that saw the other folds alone.

    Args:
        x: features (N, F).
        y: classes (N,).
        folds: (N,).
    """
    right = 0
    for fold in folds.unique():
        test = folds == fold
        weight, bias = fit(x[~test], y[~test], int(y.max()) + 1)
        right += int(((x[test] @ weight + bias).argmax(1) == y[test]).sum())
    return right / len(y)


@torch.enable_grad()
def fit(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Logistic regression: weights (F, classes) and biases. It starts from zero and draws nothing."""
    x = x.detach().clone()  # out of inference mode
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + PENALTY * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()
