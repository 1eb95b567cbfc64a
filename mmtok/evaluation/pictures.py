"""Pictures for people, drawn with Pillow alone: contact sheets of reconstructions, and how a codebook is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmtok.quantizers.usage import measure

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

INK, PAPER = "#1f2328", "white"
_BAR, _RULE, _DEAD = "#3b6ea5", "#c0392b", "#e5e7eb"
TEXT = 13
"""Height of a line of text."""
_GAP = 4


def reconstruction_sheet(
    x: Tensor, y: Tensor, *, title: str = "", captions: Sequence[str] = (), gain: int = 2, tile: int = 128
) -> Image:
    """Rows of inputs, reconstructions and their differences, uint8 (N, C, H, W) each.

    Args:
        x: inputs.
        y: reconstructions.
        title: one line above.
        captions: a line under each column ("24.1 dB").
        gain: factor of the absolute difference, so that it can be seen.
        tile: side a picture is enlarged to at least, by whole factors.
    """
    difference = ((x.int() - y.int()).abs() * gain).clamp(max=255).to(torch.uint8)
    rows = {"input": x, "reconstruction": y, f"difference x{gain}": difference}
    return contact_sheet(rows, title=title, captions=captions, tile=tile)


def contact_sheet(
    rows: Mapping[str, Tensor], *, title: str = "", captions: Sequence[str] = (), tile: int = 128
) -> Image:
    """Labelled rows of pictures, uint8 (N, C, H, W) each, all of one size; a label may have several lines."""
    from PIL import Image, ImageDraw

    pictures = next(iter(rows.values()))
    count, _, height, width = pictures.shape
    factor = max(1, -(-tile // max(height, width)))
    step_x, step_y = width * factor + _GAP, height * factor + _GAP
    margin = 8 + max(text_width(label) for label in rows)
    top = TEXT + 2 * _GAP if title else _GAP
    bottom = TEXT + 2 * _GAP if captions else 0
    size = (max(margin + count * step_x, text_width(title) + 2 * _GAP), top + len(rows) * step_y + bottom)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (_GAP, _GAP), title)
    for row, (label, batch) in enumerate(rows.items()):
        write(draw, (_GAP, top + row * step_y + (step_y - TEXT * len(label.splitlines())) // 2), label)
        for column, picture in enumerate(batch):
            sheet.paste(_enlarged(picture, factor), (margin + column * step_x, top + row * step_y))
    for column, caption in enumerate(captions):
        write(draw, (margin + column * step_x, top + len(rows) * step_y + _GAP // 2), caption)
    return sheet


def usage_picture(counts: Sequence[Tensor], *, width: int = 640, height: int = 150) -> Image:
    """One panel a codebook: how often each code occurs, from the commonest to the rarest, in units of a fair share.

    The axis is logarithmic, from a hundredth to a hundred times the fair share (the red line). Codes that never occur
    are the grey on the right.
    """
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (width + 70, (height + 44) * max(len(counts), 1)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for level, level_counts in enumerate(counts):
        top = level * (height + 44)
        write(draw, (_GAP, top + _GAP), usage_title(level_counts, level if len(counts) > 1 else None))
        _panel(draw, level_counts, (56, top + 24), width, height)
    return sheet


def usage_title(counts: Tensor, level: int | None = None) -> str:
    """State and figures of a codebook in a line."""
    usage = measure(counts)
    used = round(usage.active * usage.size)
    name = "codes" if level is None else f"level {level}"
    return (
        f"{name}: {usage.state()}  |  {used:,} of {usage.size:,} in use  |  perplexity {usage.perplexity:,.0f}  |  "
        f"evenness {usage.evenness:.2f}  |  {usage.tokens_per_code:,.0f} tokens a code"
    )


def _panel(draw: ImageDraw, counts: Tensor, origin: tuple[int, int], width: int, height: int) -> None:
    left, top = origin
    shares = counts.double().sort(descending=True).values
    shares = shares * len(shares) / shares.sum().clamp(min=1)

    def y(share: float) -> int:
        position = (torch.log10(torch.tensor(max(share, 1e-2))).item() + 2) / 4
        return top + height - round(min(position, 1.0) * height)

    for column in range(width):
        share = float(shares[min(column * len(shares) // width, len(shares) - 1)])
        x, colour = left + column, _BAR if share > 0 else _DEAD
        draw.line([(x, top + height), (x, y(share) if share > 0 else top)], fill=colour)
    for share, label in ((100, "100x"), (10, "10x"), (1, "fair"), (0.1, "0.1x")):
        draw.line([(left, y(share)), (left + width, y(share))], fill=_RULE if share == 1 else "#d0d7de")
        write(draw, (left - text_width(label) - 6, y(share) - TEXT // 2), label)
    draw.rectangle([(left, top), (left + width, top + height)], outline=INK)


def _enlarged(picture: Tensor, factor: int) -> Image:
    from PIL import Image

    array = picture.expand(3, -1, -1).movedim(0, -1).cpu().numpy()
    image = Image.fromarray(array.copy())
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def write(draw: ImageDraw, place: tuple[int, int], text: str) -> None:
    """Text whose upper left corner stands at a place."""
    from PIL import ImageFont

    draw.text(place, text, fill=INK, font=ImageFont.load_default(TEXT))


def text_width(text: str) -> int:
    """Pixels of the widest of some lines of text."""
    from PIL import ImageFont

    return max((int(ImageFont.load_default(TEXT).getlength(line)) for line in text.splitlines()), default=0)
