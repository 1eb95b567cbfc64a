"""A folder or a zip of pictures: the class of a picture is the folder it lies in. The zip is read where it is."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from datamodules.build.pictures import PICTURES
from datamodules.build.source import SPLITS, Entry, Source, file_sha256, unique_keys


class FolderSource(Source):
    """Pictures below a folder or in a zip.

    Folders named train, val (valid, validation) and test, wherever they stand first on the way to the pictures, are
    the sets; else the picture's own name decides. A text file of the same name beside a picture is its caption.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
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
        files = self._files()
        pictures = sorted(name for name in files if PurePosixPath(name).suffix[1:].lower() in PICTURES)
        if not pictures:
            raise ValueError(
                f"{self.path} holds no pictures ({', '.join(PICTURES)}) among its {len(files)} files. "
                "Give the folder or zip that holds them, one folder a class."
            )
        depth = split_depth([PurePosixPath(name).parts[:-1] for name in pictures])
        keys = unique_keys(pictures)
        return [self._entry(name, key, depth, files) for name, key in zip(pictures, keys, strict=True)]

    def close(self) -> None:
        if self.archive:
            self.archive.close()

    def _entry(self, name: str, key: str, depth: int | None, files: set[str]) -> Entry:
        path = PurePosixPath(name)
        reads = {path.suffix[1:].lower(): name}
        caption = str(path.with_suffix(".txt"))
        if caption in files:
            reads["txt"] = caption
        split, classes = None, path.parts[:-1]
        if depth is not None:
            split, classes = SPLITS[path.parts[depth].lower()], path.parts[depth + 1 : -1]
        label = classes[-1] if classes else None
        return Entry(key, group=key, read=self._reader(reads), label=label, split=split)

    def _reader(self, reads: dict[str, str]) -> Callable[[], dict[str, bytes]]:
        return partial(read_files, self.archive.read if self.archive else self._read, reads)

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


def read_files(read: Callable[[str], bytes], reads: dict[str, str]) -> dict[str, bytes]:
    """Extension -> bytes of the named files."""
    return {extension: read(name) for extension, name in reads.items()}


def split_depth(folders: list[tuple[str, ...]]) -> int | None:
    """How deep the folders named train, val and test stand; None where not every picture lies in one of them.

    >>> split_depth([("data", "train", "cat"), ("data", "test", "cat")])
    1
    """
    for depth in range(min(map(len, folders))):
        if all(parts[depth].lower() in SPLITS for parts in folders):
            return depth
    return None
