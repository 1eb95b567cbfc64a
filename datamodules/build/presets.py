"""Debian packages that are known by heart: their licence, and what the names of their files say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from datamodules.build.deb import Deb
from datamodules.build.naming import Naming
from datamodules.build.package_pictures import endless_sky, fashion_mnist, tuxpaint_spoken, tuxpaint_stamps
from datamodules.build.package_texts import fortunes
from datamodules.build.source import Entry
from datamodules.build.wordnet import glosses, hypernyms


@dataclass(frozen=True)
class Preset:
    """One or more packages, and how their files become samples."""

    package: str
    """The package; several are parted by spaces."""
    licence: str
    about: str
    kind: str = "images"
    entries: Callable[[Deb], list[Entry]] | None = None
    """Reads each package, where its files are not simply taken."""
    naming: Naming | None = None
    """Else: which files are taken, and what their names say."""
    captions: Callable[[Deb, Iterable[str]], dict[str, bytes]] | None = None
    """Texts that belong beside some of the files, by name, where none of their names stands there."""
    companions: Callable[[Deb, Mapping[str, str]], dict[str, bytes]] | None = None
    """Makes files that stand beside the sets: see `Source.companions`."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.package.split())


LANGUAGES = ("en", "es", "fr", "it", "ru")
PROMPTS = Naming(r"asterisk/sounds/(?P<speaker>(?P<label>[a-z]{2})_[^/]+)/")
STAMPS = r"tuxpaint/stamps/"
DIALOGUE = Naming(r"fillets-ng/sound/(?:share/)?(?P<group>[^/]+)/(?P<label>cs|nl)/")
FREE = "free, see the copyright files of the packages"

PICTURES = {
    "endless-sky": Preset(
        "endless-sky-data",
        "public domain and CC-BY-SA, per file",
        "273 photographs, 720 x 360, 70 MB",
        entries=endless_sky,
    ),
    "endless-sky-large": Preset(
        "endless-sky-high-dpi",
        "public domain and CC-BY-SA, per file",
        "the same at 1440 x 720, 136 MB",
        entries=endless_sky,
    ),
    "fashion-mnist": Preset(
        "dataset-fashion-mnist", "MIT", "70,000 grey pictures, 28 x 28, 31 MB", entries=fashion_mnist
    ),
    "tuxpaint-stamps": Preset(
        "tuxpaint-stamps-default", "GPL-2", "796 stamps with captions, 161 MB", entries=tuxpaint_stamps
    ),
}
SOUNDS = {
    "asterisk": Preset(
        " ".join(f"asterisk-core-sounds-{language}-g722" for language in LANGUAGES),
        "CC-BY-SA-3.0",
        "telephone prompts of five voices in five languages, 2.2 h at 16 kHz, 55 MB",
        "audio",
        naming=PROMPTS,
    ),
    "tuxpaint-speech": Preset(
        "tuxpaint-stamps-default",
        "GPL-2",
        "names of things in 14 languages, 2.5 h, 161 MB",
        "audio",
        naming=Naming(STAMPS + r".*?(?P<group>[^/]+?)[-_]?\d*_desc(?:_(?P<label>[A-Za-z_]+))?$", default_label="en"),
        captions=tuxpaint_spoken,
    ),
    "tuxpaint-effects": Preset(
        "tuxpaint-stamps-default",
        "GPL-2",
        "noises of things and animals, 161 MB",
        "audio",
        naming=Naming(STAMPS + r"(?P<label>[^/]+)/(?!.*_desc)(?:.*/)?(?P<group>[^/]+?)[-_]?\d*$"),
    ),
    "fillets": Preset(
        "fillets-ng-data-cs fillets-ng-data-nl", "GPL-2", "acted dialogue in Czech and Dutch, 3.2 h, 72 MB", "audio",
        naming=DIALOGUE,
    ),
    "sonic-pi": Preset("sonic-pi-samples", "CC0", "loops, drums and ambience, 0.1 h, 22 MB", "audio"),
    "music": Preset(
        "wesnoth-1.16-music planetblupi-music-ogg hyperrogue-music",
        FREE,
        "orchestral and electronic music, 5.3 h, 277 MB",
        "audio",
    ),
}  # fmt: skip
TEXTS = {
    "libreoffice-help": Preset(
        " ".join(f"libreoffice-help-{language}" for language in ("en-us", "fr", "ja", "ru")),
        "MPL-2.0",
        "the same 2,561 help pages in English, French, Japanese and Russian, 12 MB",
        "text",
        naming=Naming(r"libreoffice/help/(?P<label>[A-Za-z-]+)/(?P<group>text/.+)$"),
    ),
    "wordnet": Preset(
        "wordnet-base",
        "WordNet 3.0",
        "glosses of 82,115 nouns in 26 classes, with their tree, 6 MB",
        "text",
        entries=glosses,
        companions=hypernyms,
    ),
    "fortunes": Preset("fortunes", FREE, "short texts in English, 0.8 MB", "text", entries=fortunes),
    "fortunes-world": Preset(
        "fortunes-de fortunes-ru", FREE, "short texts in German and Russian, 1.6 MB", "text", entries=fortunes
    ),
}
PRESETS = PICTURES | SOUNDS | TEXTS
"""What `debian:NAME` knows by heart. Any other name is taken as the name of a package."""
