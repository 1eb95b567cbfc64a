"""What comes along: a few hundred real pictures, and some sounds, for a first run on a machine that reaches nothing."""

from __future__ import annotations

from pathlib import Path

from datamodules.build.folder import FolderSource
from mmtok.schema import suggest

FOLDER = Path(__file__).parents[1] / "fixture"
FIXTURES = {
    "endless-sky": ("64 photographs, 96 x 96", "public domain"),
    "fashion-mnist": ("256 grey pictures of clothes, 28 x 28", "MIT"),
    "sonic-pi": ("24 sounds of instruments and things, 16 kHz", "CC0"),
}
"""Names, content and licence; each is FOLDER/NAME.zip, made by FOLDER/make.py or make_sounds.py."""
DEFAULT = "endless-sky"


class FixtureSource(FolderSource):
    """One of the committed zips."""

    def __init__(self, name: str = DEFAULT) -> None:
        """Opens it.

        Raises:
            ValueError: there is no such fixture.
        """
        if name not in FIXTURES:
            raise ValueError(f"there is no fixture '{name}'.{suggest(name, FIXTURES)}")
        super().__init__(FOLDER / f"{name}.zip")
        self.provenance |= {"kind": "fixture", "name": name, "licence": FIXTURES[name][1]}
