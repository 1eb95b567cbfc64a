"""The kinds of content that shards are built of. A new one joins here, and nowhere else."""

from __future__ import annotations

from datamodules.build.pictures import Pictures
from datamodules.build.prepare import Preparer
from datamodules.build.sounds import Sounds
from datamodules.build.texts import Texts
from datamodules.build.vectors import Vectors

KINDS: dict[str, type[Preparer]] = {one.kind: one for one in (Pictures, Sounds, Texts, Vectors)}
"""Kind as in the manifest -> what makes samples of it."""
