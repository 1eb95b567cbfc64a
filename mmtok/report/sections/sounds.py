"""Inputs and what came back, to listen to, each over its spectrogram."""

from __future__ import annotations

from torch import Tensor

from mmtok.report.html import Content, Html, tag
from mmtok.report.looking import Look
from mmtok.report.media import SECONDS, Media, loudest, spectrum, wav
from mmtok.report.sections.widgets import by_group
from mmtok.report.story import Section, Story

ROOM = 4_500_000
"""Characters of media after which no other sound is added: what follows wants room too."""


def sounds(story: Story) -> Section | None:
    """A block an item: the input first, then each series' result."""
    looks = [one for one in story.looks if one.run.modality == "audio" and one.inputs]
    if not looks:
        return None
    blocks: list[tuple[str, Content]] = []
    most = max(len(one.inputs) for one in looks)
    for item, name in [(item, name) for item in range(most) for name in story.groups]:
        own = [one for one in looks if one.run.group == name]
        if story.media.size < ROOM and (block := _item(item, own, story)):
            blocks.append((own[0].run.series, block))
    left = " Some were left out to keep the page small." if story.media.size >= ROOM else ""
    lead = f"The first {SECONDS:.0f} seconds of held-out sounds. The brightest is as loud as the input's peak.{left}"
    return Section("sounds", "Sounds", lead, tag("div", by_group(story, blocks))) if blocks else None


def _item(item: int, looks: list[Look], story: Story) -> Html | None:
    """Inputs are one player where the series had the same one."""
    players: list[Content] = []
    last: Tensor | None = None
    for one in looks:
        if item >= len(one.inputs):
            continue
        x, y = one.inputs[item], one.outputs[item]
        peak = loudest(x, one.rate)
        if last is None or last.shape != x.shape or not bool((last == x).all()):
            players.append(player(story.media, x, one.rate, peak, "input", f"Sound {item + 1}, input"))
        last = x
        players.append(
            player(story.media, y, one.rate, peak, story.named(one.run.series), f"Sound {item + 1}, {one.run.name}")
        )
    shown = [one for one in players if one]
    if len(shown) < 2:
        return None
    return tag("div", tag("h3", f"Sound {item + 1}"), tag("div", shown, class_="players"))


def player(media: Media, clip: Tensor, rate: int, peak: float, label: Content, name: str) -> Html | None:
    """A spectrogram with a line that goes along, and the browser's own controls."""
    heard, seen = media.add("audio/wav", wav(clip, rate)), media.add("image/webp", spectrum(clip, rate, peak))
    if not heard or not seen:
        return None
    return tag(
        "figure",
        tag("figcaption", label),
        tag(
            "div",
            tag("img", data_media=seen, alt=f"{name}: log-mel spectrogram", width=480, height=120),
            tag("span", class_="playhead", aria_hidden="true"),
            class_="spectrum",
        ),
        tag("audio", controls=True, data_media=heard, preload="metadata", aria_label=name),
        class_="player",
    )
