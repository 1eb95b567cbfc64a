"""What the page shows, as plain arrays and text that any dashboard takes."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmtok.report.html import Content, join
from mmtok.report.looking import Look
from mmtok.report.media import SECONDS, loudest
from mmtok.report.numbers import spread, titled
from mmtok.report.sections.results import RUN_FIGURES
from mmtok.report.sections.tradeoff import BITS, TOKENS
from mmtok.report.sections.verdict import sentences
from mmtok.report.sources import Comparison, Run
from mmtok.report.story import Story

SHOWN = 96
"""Pixels a side that small pictures are enlarged to."""


class Heard(NamedTuple):
    """A sound with its spectrogram."""

    name: str
    samples: NDArray[np.float32]
    """(S, C) in [-1, 1]."""
    rate: int
    spectrum: NDArray[np.uint8]
    """(H, W, 3)."""


def text_of(content: Content) -> str:
    """What a reader sees of markup."""
    return html.unescape(re.sub(r"<[^>]+>", "", join(content)))


def verdict_text(story: Story) -> str:
    """The verdict as Markdown."""
    lines: list[str] = []
    for heading, asks, said in sentences(story):
        lines += [f"### {heading}\n"] if heading else []
        lines += [f"*{asks}*\n"] if asks else []
        lines += [*(f"- {text_of(one)}" for one in said), ""]
    return "\n".join(lines)


def figures_table(comparison: Comparison) -> str:
    """Means with intervals as a Markdown table, an arm a row."""
    names = list(comparison.summary)
    head = ["arm", *map(titled, names)]
    rows = [head, ["---"] * len(head)]
    for arm in comparison.arms:
        found = (comparison.summary[name].get(arm) for name in names)
        cells = ["–" if one is None else " ± ".join(filter(None, spread(one["mean"], one["half"]))) for one in found]
        rows.append([arm, *cells])
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def figures_of(run: Run, comparison: Comparison | None) -> dict[str, float]:
    """Of one seed of an arm, or of a run by itself: what the page's tables and charts hold."""
    if comparison is None:
        return {name: run.metrics[name] for name in RUN_FIGURES if name in run.metrics}
    arm = run.series.removeprefix(comparison.prefix)
    row = next(row for row in comparison.results["rows"] if row["arm"] == arm and row["seed"] == run.seed)
    return dict(row["figures"])


def members(story: Story) -> Iterator[tuple[Run, Comparison | None]]:
    """Each run with the comparison it is of."""
    for one in story.comparisons:
        yield from ((run, one) for run in one.runs)
    yield from ((run, None) for run in story.alone)


def rates_of(figures: dict[str, Any]) -> list[str]:
    """The first rate in bits and the first in tokens that there are."""
    return [name for names in (BITS, TOKENS) for name in [next((one for one in names if one in figures), "")] if name]


def strips(look: Look) -> list[NDArray[np.uint8]]:
    """A picture an item (H, W, 3): input, what came back, and the map of codes over the input where there is one."""
    if look.run.modality != "image":
        return []
    found = []
    for i, (x, y) in enumerate(zip(look.inputs, look.outputs, strict=True)):
        parts = [x, y]
        if i < len(look.colours):
            grid, side = look.grids[i], (x.shape[1], x.shape[2])
            colours = look.colours[i].T.reshape(1, 3, *grid).float()
            veil = F.interpolate(colours, size=side, mode="nearest")[0]
            parts.append((0.35 * x.expand(3, -1, -1).float() + 0.65 * veil).round().to(x.dtype))
        found.append(np.concatenate([_enlarged(part) for part in parts], axis=1))
    return found


def _enlarged(picture: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) -> (H, W, 3), by a whole factor, so that pixels stay square."""
    array: NDArray[np.uint8] = picture.expand(3, -1, -1).movedim(0, -1).cpu().numpy()
    factor = max(1, SHOWN // max(array.shape[:2]))
    return array.repeat(factor, 0).repeat(factor, 1)


def gallery(look: Look) -> NDArray[np.uint8] | None:
    """Patches that chose a code (H, W, 3), a row a code, commonest first; None where there are none."""
    rows = [one.strip.expand(3, -1, -1).movedim(0, -1).numpy() for one in look.gallery]
    width = max((row.shape[1] for row in rows), default=0)
    padded = [np.pad(row, ((0, 2), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded) if padded else None


def sounds(look: Look) -> Iterator[tuple[Heard, Heard]]:
    """Input and what came back, an item each, of the seconds that the page plays."""
    from mmtok.evaluation.sound_pictures import coloured, interleaved, spectrogram

    if look.run.modality != "audio":
        return
    kept = round(SECONDS * look.rate)
    for x, y in zip(look.inputs, look.outputs, strict=True):
        peak = loudest(x, look.rate)
        pair = [
            Heard(
                name, interleaved(clip[:, :kept].clamp(-1, 1)), look.rate,
                np.asarray(coloured(spectrogram(clip[:, :kept], look.rate), peak).convert("RGB")),
            )
            for name, clip in (("input", x), ("output", y))
        ]  # fmt: skip
        yield pair[0], pair[1]


def ranked_shares(counts: Sequence[int]) -> list[tuple[int, float]]:
    """(rank from 1, share over an even one) of codes from the commonest to the rarest that occurred, thinned."""
    from mmtok.report.sections.usage import shares_by_rank

    return [(round(percent * len(counts) / 100), share) for percent, share in shares_by_rank(counts)]
