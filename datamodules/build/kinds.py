"""The kinds of content that shards are built of. A new one joins here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datamodules.build.embedded import Embedded
from datamodules.build.pictures import Pictures
from datamodules.build.prepare import Preparer
from datamodules.build.sounds import Sounds
from datamodules.build.texts import Texts
from datamodules.build.vectors import Vectors

KINDS: dict[str, type[Preparer]] = {one.kind: one for one in (Pictures, Sounds, Texts, Vectors)}
"""Kind as in the manifest -> what makes samples of it."""


def preparer_of(kind: str, own: Mapping[str, Any]) -> type[Preparer]:
    """What makes samples of a source of a kind, with these options of its own.

    Raises:
        ValueError: vectors are asked for, of something else than texts.
    """
    if own.get("vectors") is None:
        return KINDS[kind]
    if kind != Texts.kind:
        raise ValueError(f"vectors={own['vectors']} makes vectors of texts, and the source holds {KINDS[kind].noun}.")
    return Embedded
