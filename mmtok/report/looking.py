"""What only a tokenizer can tell: codes of some held-out items, what comes back, and which patches chose a code.

Computed when the report is made, on the CPU, of few items. What cannot be had (no checkpoint, shards that moved) is a
note on the page, and the rest of the page stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmtok.report.galleries import Chosen, Patches
from mmtok.report.sources import CONFIG, Run
from mmtok.tokenizers.pixels import to_uint8, to_unit

if TYPE_CHECKING:
    from mmtok.tokenizers.base import Tokenizer

SURVEYED = {"image": 96, "audio": 24}
"""Held-out items that counts and galleries are made of."""


@dataclass
class Look:
    """What a run's tokenizer makes of some items. Lists are an item each."""

    run: Run
    inputs: list[Tensor] = field(default_factory=list)
    """uint8 (C, H, W), or (C, S) in [-1, 1]."""
    outputs: list[Tensor] = field(default_factory=list)
    ids: list[Tensor] = field(default_factory=list)
    """(L, T); none where there is no tokenizer to ask, or no quantizer."""
    grids: list[tuple[int, int]] = field(default_factory=list)
    """Of pictures."""
    colours: list[Tensor] = field(default_factory=list)
    """(T, 3) uint8: the first three principal components of the values, so that similar codes look alike."""
    sizes: tuple[int, ...] = ()
    """Of the codebooks."""
    rate: int = 0
    """Samples a second, of sounds."""
    counts: Sequence[Sequence[int]] = ()
    surveyed: int = 0
    """Items behind the counts, where they are not the evaluation's."""
    gallery: list[Chosen] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be had, and why."""


def look(run: Run, items: int, *, ask: bool = True) -> Look:
    """Everything of a run that its files or its tokenizer tell.

    Args:
        run: of the report.
        items: at most.
        ask: whether to load the tokenizer; without, only what files hold.
    """
    found = Look(run, counts=run.counts)
    _from_files(found, items)
    if run.modality not in SURVEYED or not ask:
        return found
    try:
        tokenizer = _tokenizer(run)
    except (ValueError, OSError, ImportError) as error:
        found.notes.append(f"{run.name}: no tokenizer to ask. {error}")
        return found
    found.sizes = tuple(tokenizer.spec.codebook_sizes)
    found.rate = found.rate or tokenizer.spec.sample_rate or 0
    with torch.inference_mode():
        try:
            _survey(found, tokenizer, items)
        except (ValueError, OSError, ImportError) as error:
            found.notes.append(f"{run.name}: its held-out set cannot be read. {error}")
        if found.sizes and run.modality == "image":
            _codes(found, tokenizer)
    return found


def _tokenizer(run: Run) -> Tokenizer:
    from mmtok.loading import load

    if not run.tokenizer:
        raise ValueError("It is an adapter's.")
    return load(Path(run.tokenizer)).eval()


def _from_files(found: Look, items: int) -> None:
    """Items that a comparison left behind."""
    from mmtok.report.media import read_picture, read_sound

    for source, result in found.run.examples[:items]:
        if source.suffix == ".png":
            found.inputs.append(read_picture(source))
            found.outputs.append(read_picture(result))
        else:
            (x, found.rate), (y, _) = read_sound(source), read_sound(result)
            found.inputs.append(x)
            found.outputs.append(y)


def _survey(found: Look, tokenizer: Tokenizer, items: int) -> None:
    """Counts, galleries and, where no file has them, items of the run's held-out set."""
    from mmtok.config import load_config
    from mmtok.evaluation.audio_quality import groups_of
    from mmtok.evaluation.heldout import HeldOut, Signals
    from mmtok.evaluation.report import CodeCounts

    folder = found.run.folder if (found.run.folder / CONFIG).is_file() else Path(found.run.tokenizer)
    if not (folder / CONFIG).is_file():
        return
    data = dataclasses.replace(load_config([str(folder)], []).config.data, workers=0)
    most = SURVEYED[found.run.modality]
    held_out = HeldOut(data, samples=most)
    every, lacking = max(1, min(most, held_out.count) // max(1, items)), not found.inputs
    counts, patches = CodeCounts(found.sizes), Patches(tokenizer.spec.downsample)
    pairs: list[tuple[int, Tensor, Tensor]] = []
    for group in groups_of(Signals(held_out), torch.device("cpu"), most):
        latents = tokenizer.embed(group.x)
        out = tokenizer.quantizer(latents.z, latents.mask, grid=latents.grid)
        if found.sizes:
            counts.update(out.ids)
            if latents.grid is not None:
                patches.add(to_uint8(group.x), out.ids[:, 0], latents.z, out.values, latents.grid)
        found.surveyed += len(group.x)
        wanted = [i for i, number in enumerate(group.numbers) if number % every == 0 and lacking]
        if wanted:
            y = tokenizer.synthesise(
                out.values[wanted], latents.grid, tuple(group.x.shape[2:]),
                gain=None if latents.gain is None else latents.gain[wanted],
            )  # fmt: skip
            pairs += [(group.numbers[i], group.x[i], one) for i, one in zip(wanted, y, strict=True)]
    for _, x, y in sorted(pairs, key=lambda pair: pair[0])[:items]:
        sound = found.run.modality == "audio"
        found.inputs.append(x if sound else to_uint8(x))
        found.outputs.append(y.clamp(-1, 1) if sound else to_uint8(y))
    if not found.counts:
        found.counts = [level.tolist() for level in counts.levels if level.numel()]
    found.gallery = patches.chosen()


def _codes(found: Look, tokenizer: Tokenizer) -> None:
    """Ids and colours of the pictures that are shown."""
    values: list[Tensor] = []
    for picture in found.inputs:
        latents = tokenizer.embed(to_unit(picture[None]))
        assert latents.grid is not None
        out = tokenizer.quantizer(latents.z, latents.mask, grid=latents.grid)
        if out.ids.shape[2] != latents.z.shape[1]:  # several scales have no one grid to lay over the picture
            found.notes.append(f"{found.run.name}: its ids lie on grids of several sizes, which no map here shows.")
            return
        found.ids.append(out.ids[0])
        found.grids.append(latents.grid)
        values.append(out.values[0].float())
    if values:
        found.colours = list(principal_colours(torch.cat(values)).split([len(one) for one in values]))


def principal_colours(values: Tensor) -> Tensor:
    """(N, D) -> (N, 3) uint8, each principal component spread over most of a channel's range."""
    centred = values - values.mean(0)
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(1)
    places = centred @ directions
    if places.shape[1] < 3:
        places = places[:, [0] * (3 - places.shape[1]) + list(range(places.shape[1]))]
    low, high = places.quantile(0.02, dim=0), places.quantile(0.98, dim=0)
    return (25 + 205 * ((places - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)).round().to(torch.uint8)
