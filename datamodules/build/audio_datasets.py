"""torchaudio's datasets, by name, for machines that reach their hosts. torchaudio downloads, checks and unpacks them.

Their files are then read here like any folder's: torchaudio's own reading needs TorchCodec and FFmpeg.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.build.deb import OFFLINE
from datamodules.build.files import extension_of, file_entries
from datamodules.build.kinds import KINDS
from datamodules.build.naming import Naming
from datamodules.build.source import ANYTHING, Entry, Source, Wanted
from mmtok.schema import suggest


@dataclass(frozen=True)
class KnownSounds:
    """One dataset of torchaudio."""

    cls: str
    """Name of the class in `torchaudio.datasets`."""
    about: str
    naming: Naming
    """Files it does not match are left out."""
    parts: tuple[Mapping[str, Any], ...] = ({},)
    """Arguments of each part that is downloaded."""


CHAPTERS = Naming(r"/(?P<split>train|dev|test)-clean[^/]*/(?P<speaker>\d+)/", split_by="speaker")
CLEAN = tuple({"url": url} for url in ("train-clean-100", "dev-clean", "test-clean"))
KNOWN_SOUNDS = {
    "yesno": KnownSounds("YESNO", "60 recordings in Hebrew, 8 kHz, 5 MB", Naming(r"waves_yesno/[01_]+$")),
    "speechcommands": KnownSounds(
        "SPEECHCOMMANDS",
        "105,829 words of 35 kinds, 16 kHz, 2.3 GB",
        Naming(r"/(?P<label>[a-z]+)/(?P<speaker>[0-9a-f]{8})_nohash_", split_by="speaker"),
    ),
    "ljspeech": KnownSounds("LJSPEECH", "24 h of one voice, 22.05 kHz, 2.6 GB", Naming(r"/wavs/LJ\d+-")),
    "librispeech": KnownSounds("LIBRISPEECH", "100 h read speech with dev and test, 16 kHz, 7 GB", CHAPTERS, CLEAN),
    "libritts": KnownSounds("LIBRITTS", "54 h read speech with dev and test, 24 kHz, 9 GB", CHAPTERS, CLEAN),
    "vctk": KnownSounds(
        "VCTK_092", "44 h, 110 voices, 48 kHz, 11 GB", Naming(r"/(?P<speaker>[ps]\d+)_\d+_mic2$", split_by="speaker")
    ),
    "gtzan": KnownSounds("GTZAN", "1,000 x 30 s of music, 10 genres, 1.2 GB", Naming(r"/(?P<label>[a-z]+)\.\d{5}$")),
}


class SoundDatasetSource(Source):
    """A dataset of torchaudio, downloaded into the cache folder the first time."""

    def __init__(self, name: str, cache: Path, wanted: Wanted = ANYTHING) -> None:
        """Checks the name and that torchaudio is there.

        Raises:
            ValueError: unknown name, or no torchaudio.
        """
        if name not in KNOWN_SOUNDS:
            raise ValueError(f"there is no torchaudio dataset '{name}' here.{suggest(name, KNOWN_SOUNDS)}")
        try:
            import torchaudio
        except ImportError:
            raise ValueError("torchaudio is not installed. Install it: pip install 'mmtok[audio]'") from None
        self.name, self.known, self.folder, self.wanted = name, KNOWN_SOUNDS[name], cache / name, wanted
        licence = "see the dataset's own page"
        about = {"kind": "torchaudio", "name": name, "version": torchaudio.__version__, "licence": licence}
        super().__init__(about, kind="audio")

    def entries(self) -> list[Entry]:
        import torchaudio.datasets

        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self.known.parts:
            try:
                getattr(torchaudio.datasets, self.known.cls)(str(self.folder), download=True, **part)
            except (OSError, RuntimeError) as error:  # URLError is an OSError; a failed checksum is a RuntimeError
                raise ValueError(
                    f"torchaudio could not fetch '{self.name}': {error}. Is this machine online? {OFFLINE}"
                ) from error
        files = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
        taken = {
            name
            for name in files
            if extension_of(name) in KINDS[self.kind].extensions and self.known.naming.matches(name)
        }
        if not taken:
            raise ValueError(f"torchaudio left no sounds of '{self.name}' in {self.folder}. Remove it and try again.")
        return file_entries(taken, self._read, self.kind, self.wanted, self.known.naming)

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()
