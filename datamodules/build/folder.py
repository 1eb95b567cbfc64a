"""A folder or a zip of files: the class of each is the folder it lies in. The zip is read where it is."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from datamodules.build.files import file_entries, kind_of
from datamodules.build.source import ANYTHING, Entry, Source, Wanted, file_sha256


class FolderSource(Source):
    """Pictures or sounds below a folder or in a zip; `file_entries` says what their places and names mean."""

    def __init__(self, path: Path, wanted: Wanted = ANYTHING) -> None:
        super().__init__()
        self.wanted = wanted
        self.path = path
        self.archive: zipfile.ZipFile | None = None
        self.provenance = {"kind": "folder" if path.is_dir() else "zip", "name": path.name, "licence": "not stated"}
        if not path.is_dir():
            self.provenance |= {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            try:
                self.archive = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise ValueError(
                    f"{path} is no zip file that can be read ({error}). Is the download complete?"
                ) from error

    def entries(self) -> list[Entry]:
        names = self._files()
        try:
            self.kind = kind_of(names, self.wanted)
        except ValueError as error:
            remedy = "Give the folder or zip that holds them, one folder a class."
            raise ValueError(f"{self.path} {error}. {remedy}") from error
        return file_entries(names, self.archive.read if self.archive else self._read, self.kind, self.wanted)

    def close(self) -> None:
        if self.archive:
            self.archive.close()

    def _read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def _files(self) -> set[str]:
        """Names relative to the folder or zip, with '/' between; hidden files and those of the Mac's zips left out."""
        if self.archive:
            names = [info.filename for info in self.archive.infolist() if not info.is_dir()]
        else:
            walk = os.walk(self.path, followlinks=True)
            names = [
                Path(folder, name).relative_to(self.path).as_posix() for folder, _, found in walk for name in found
            ]
        return {name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))}
