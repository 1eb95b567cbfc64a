"""Inputs and what came back, one over the other, with a slider between them."""

from __future__ import annotations

from torch import Tensor

from mmtok.evaluation.metrics import psnr
from mmtok.report.html import Content, Html, tag
from mmtok.report.media import png
from mmtok.report.sections.widgets import by_group, picture
from mmtok.report.story import Section, Story


def pictures(story: Story) -> Section | None:
    """A row of sliders a series; every series shows as many items."""
    looks = [one for one in story.looks if one.run.modality == "image" and one.inputs]
    if not looks:
        return None
    rows: list[list[Html]] = [[] for _ in looks]
    for item in range(max(len(one.inputs) for one in looks)):
        for row, one in zip(rows, looks, strict=True):
            if item >= len(one.inputs):
                continue
            keys = [story.media.add("image/png", png(side[item])) for side in (one.inputs, one.outputs)]
            if all(keys):
                row.append(
                    slider(keys[0], keys[1], one.inputs[item], one.outputs[item], f"{one.run.name}, picture {item + 1}")
                )
    blocks: list[tuple[str, Content]] = [
        (
            one.run.series,
            tag(
                "div", tag("h3", story.named(one.run.series), _mean(one.run.metrics)), tag("div", row, class_="sliders")
            ),
        )
        for row, one in zip(rows, looks, strict=True)
        if row
    ]
    left = " Some were left out to keep the page small." if story.media.full else ""
    lead = (
        f"Drag, or use the arrow keys: left of the line is the input, right of it what came back from the codes.{left}"
    )
    return Section("pictures", "Reconstructions", lead, tag("div", by_group(story, blocks))) if blocks else None


def slider(before: str, after: str, x: Tensor, y: Tensor, name: str) -> Html:
    """Two pictures and the line between them, with the PSNR of this one below."""
    side = (x.shape[1], x.shape[2])
    decibels = float(psnr(x[None], y[None])[0])
    return tag(
        "figure",
        tag(
            "div",
            picture(before, f"{name}: input", side),
            tag("div", picture(after, f"{name}: reconstruction", side), class_="after"),
            tag("span", class_="line", aria_hidden="true"),
            tag("input", type="range", min=0, max=100, value=50, aria_label=f"{name}: percent of the input shown"),
            class_="pair",
        ),
        tag("figcaption", f"{decibels:.1f} dB"),
        class_="slider",
    )


def _mean(metrics: dict[str, float]) -> Html | None:
    if "psnr" not in metrics:
        return None
    return tag("span", f"PSNR {metrics['psnr']:.2f} dB over the set", class_="aside")
