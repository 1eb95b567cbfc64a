"""Golden inputs: what a tokenizer gave where it was exported, so that any other place can be held to it.

Ids are promised in float32, one item at a time, wherever the best code was the best by a margin of 1e-4: kernels differ
between machines and batch sizes, and a tie then falls to either side (sglang-omni#749: 41 of 300 codes). At levels
after one that was not clear, nothing is promised either. Latents and decoded signals are promised to a share of their
largest value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmtok.codes import Codes
from mmtok.quantizers.base import Quantizer
from mmtok.tensorfile import write_tensors
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.standard import Standard

TENSORS, FACTS = "golden.safetensors", "golden.json"
MARGIN = 1e-4
TOLERANCE = 1e-5
"""Of latents, beside their largest value."""
DECODED = 1e-3
"""Of signals: an eighth of a step of 8 bits."""
_LARGEST = 256


class Golden(NamedTuple):
    """One input and what became of it. A half of a tokenizer lacks what it cannot make."""

    codes: Codes
    """Of one item."""
    margins: Tensor
    """(L, T) by which each code was the best."""
    x: Tensor | None = None
    """(1, C, ...) the signal."""
    z: Tensor | None = None
    """(1, T, D) its latents."""
    decoded: Tensor | None = None
    """(1, C, ...) what the codes give back."""

    @property
    def promised(self) -> Tensor:
        """(L, T) where the id must be the same everywhere."""
        return (self.margins > MARGIN).long().cumprod(0).bool()


def golden(tokenizer: Tokenizer, part: str = "both") -> list[Golden]:
    """What a tokenizer on the CPU gives for the inputs of its modality."""
    return [_one(tokenizer, x, part) for x in inputs(tokenizer)]


def inputs(tokenizer: Tokenizer) -> list[Tensor]:
    """A few signals (1, C, ...): as in training, and of an odd size where sizes differ.

    Raises:
        ValueError: there are none for this modality.
    """
    make = _INPUTS.get(tokenizer.spec.modality)
    if make is None:
        raise ValueError(
            f"there is no bundle for tokenizers of '{tokenizer.spec.modality}' yet: only for {', '.join(_INPUTS)}."
        )
    return make(tokenizer)


def _pictures(tokenizer: Tokenizer) -> list[Tensor]:
    step, channels = tokenizer.spec.downsample, tokenizer.spec.channels
    side = min(getattr(tokenizer.config, "image_size", _LARGEST), _LARGEST)
    return [_picture(side, side, channels, 0), _picture(2 * step + 3, 3 * step - 1, channels, 1)]


def _sounds(tokenizer: Tokenizer) -> list[Tensor]:
    spec = tokenizer.spec
    step, rate = spec.downsample, spec.sample_rate or 16000
    return [_sound(max(rate, 8 * step), rate, spec.channels, 0), _sound(5 * step + 3, rate, spec.channels, 1)]


def _vectors(tokenizer: Tokenizer) -> list[Tensor]:
    """As the training set's, by its means and deviations where they are known."""
    standard = tokenizer.standard
    assert isinstance(standard, Standard)
    draws = (torch.randn(1, tokenizer.spec.channels, generator=torch.Generator().manual_seed(n)) for n in range(4))
    return [standard.back(draw) for draw in draws]


def _picture(height: int, width: int, channels: int, seed: int) -> Tensor:
    """Slopes, edges, waves and some noise."""
    noise = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    tones = torch.arange(1, channels + 1)[:, None, None] / channels
    waves = torch.sin(6.28 * (3 * x + 2 * y * tones + seed / 3)) * 0.4 + (x - y * tones) * 0.4
    edges = 0.3 * ((x - 0.5).square() + (y - 0.4).square() < 0.05 * tones)
    grain = 0.05 * torch.randn(channels, height, width, generator=noise)
    return (waves + edges + grain).clamp(-1, 1)[None]


def _sound(samples: int, rate: int, channels: int, seed: int) -> Tensor:
    """A rising tone, a fading one and some noise."""
    noise = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / rate
    rising = torch.sin(6.28 * (110 + 400 * time) * time) * 0.3
    fading = torch.sin(6.28 * 523 * time) * 0.3 * torch.exp(-3 * time)
    levels = torch.linspace(1, 0.7, channels)[:, None]
    return ((rising + fading) * levels + 0.02 * torch.randn(channels, samples, generator=noise)).clamp(-1, 1)[None]


_INPUTS: dict[str, Callable[[Tokenizer], list[Tensor]]] = {
    "image": _pictures, "audio": _sounds, "vector": _vectors,
}  # fmt: skip


def _one(tokenizer: Tokenizer, x: Tensor, part: str) -> Golden:
    with torch.inference_mode(), evaluating(tokenizer):
        with leaves_called(tokenizer.quantizer) as calls:
            codes = tokenizer.encode(x)
        margins = torch.cat([leaf.margins(z) for leaf, z in calls])
        if part == "decoder":
            return Golden(codes, margins, decoded=tokenizer.decode(codes))
        decoded = tokenizer.decode(codes) if part == "both" else None
        return Golden(codes, margins, x, tokenizer.embed(x).z, decoded)


@contextmanager
def leaves_called(quantizer: Quantizer) -> Iterator[list[tuple[Quantizer, Tensor]]]:
    """The quantizers of one level that are called inside, in the order of their levels, and their latents."""
    calls: list[tuple[Quantizer, Tensor]] = []

    def note(module: Any, args: tuple[Any, ...]) -> None:
        calls.append((module, args[0]))

    parts = [part for part in quantizer.modules() if isinstance(part, Quantizer)]
    leaves = [part for part in parts if sum(isinstance(inner, Quantizer) for inner in part.modules()) == 1]
    hooks = [leaf.register_forward_pre_hook(note) for leaf in leaves]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def ids_sha256(items: Sequence[Golden]) -> str:
    """Of the ids of all items."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.codes.ids.contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_golden(items: Sequence[Golden], folder: Path) -> None:
    """Write both files."""
    tensors: dict[str, Tensor] = {}
    facts = []
    for number, item in enumerate(items):
        codes = item.codes
        own = {"ids": codes.ids, "lengths": codes.lengths, "source_size": codes.source_size, "margins": item.margins}
        own |= {f"extras.{name}": value for name, value in codes.extras.items()}
        own |= {name: value for name in ("x", "z", "decoded") if (value := getattr(item, name)) is not None}
        tensors |= {f"{number}.{name}": value.contiguous().clone() for name, value in own.items()}
        facts.append({"grid": codes.grid, "promised": float(item.promised.float().mean())})
    write_tensors(tensors, folder / TENSORS, {"format": "pt"})
    said = {"items": facts, "margin": MARGIN, "latents": TOLERANCE, "decoded": DECODED, "device": "cpu"}
    said |= {"dtype": "float32", "batch": 1, "torch": torch.__version__, "ids_sha256": ids_sha256(items)}
    (folder / FACTS).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def read_golden(folder: Path) -> list[Golden]:
    """What `write_golden` wrote.

    Raises:
        KeyError, ValueError, OSError: it is damaged.
    """
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    tensors = load_file(folder / TENSORS)
    return [_read(tensors, str(number), item) for number, item in enumerate(facts["items"])]


def _read(tensors: Mapping[str, Tensor], number: str, facts: Mapping[str, Any]) -> Golden:
    own = {name.removeprefix(f"{number}."): value for name, value in tensors.items() if name.startswith(f"{number}.")}
    extras = {name.removeprefix("extras."): value for name, value in own.items() if name.startswith("extras.")}
    grid = None if facts["grid"] is None else (int(facts["grid"][0]), int(facts["grid"][1]))
    codes = Codes(own["ids"], own["lengths"], own["source_size"], grid=grid, extras=extras)
    return Golden(codes, own["margins"], own.get("x"), own.get("z"), own.get("decoded"))


def differences(
    item: Golden, *, ids: Tensor | None = None, z: Tensor | None = None, decoded: Tensor | None = None
) -> str:
    """What of the promise a result breaks, in words; "" where it keeps it.

    Args:
        item: what was promised.
        ids: (1, L, T) found; None for not looked at.
        z: (1, T, D) found.
        decoded: (1, C, ...) found.
    """
    if (
        z is not None
        and item.z is not None
        and (said := _far(z, item.z, TOLERANCE * max(1.0, float(item.z.abs().max()))))
    ):
        return f"latents {said}"
    if ids is not None:
        want = item.codes.ids
        if ids.shape != want.shape:
            return f"ids are {tuple(ids.shape)}, and were {tuple(want.shape)}"
        if wrong := int((item.promised & (ids != want)[0]).sum()):
            return f"{wrong} of {int(item.promised.sum())} promised ids differ"
    if decoded is not None and item.decoded is not None and (said := _far(decoded, item.decoded, DECODED)):
        return f"decoded signals {said}"
    return ""


def _far(found: Tensor, want: Tensor, tolerance: float) -> str:
    if found.shape != want.shape:
        return f"are {tuple(found.shape)}, and were {tuple(want.shape)}"
    worst = float((found.float() - want).abs().max()) if want.numel() else 0.0
    return "" if worst <= tolerance else f"differ by {worst:.2g}, more than {tolerance:.2g}"
