"""Debian packages by name: real data for a machine that reaches a package mirror and nothing else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules.build.deb import Deb, fetch
from datamodules.build.files import extension_of, file_entries, kind_of
from datamodules.build.kinds import KINDS
from datamodules.build.presets import PRESETS, Preset
from datamodules.build.source import ANYTHING, Entry, Source, Wanted, file_sha256
from mmtok.schema import suggest


class DebianSource(Source):
    """A preset of one or more packages, a package by its name, or a .deb file at hand."""

    def __init__(self, name: str, cache: Path, wanted: Wanted = ANYTHING) -> None:
        """Fetches the package, unless `name` is the path of a .deb.

        Raises:
            ValueError: it cannot be had; says what to do instead.
        """
        preset = PRESETS.get(name)
        if name.endswith(".deb"):
            paths = [Path(name)]
        elif preset or re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            paths = [self._fetch(name, package, cache) for package in (preset.packages if preset else (name,))]
        else:
            raise ValueError(f"'{name}' cannot be the name of a Debian package.{suggest(name, PRESETS)}")
        self.debs, self.wanted = [Deb(path) for path in paths], wanted
        self.preset = preset or _preset_of(self.debs[0].package, wanted)
        super().__init__(self._provenance())

    def entries(self) -> list[Entry]:
        naming, wanted = None, self.wanted
        if self.preset:
            self.kind = self.preset.kind
            if self.preset.entries:
                return [entry for deb in self.debs for entry in self.preset.entries(deb)]
            naming, wanted = self.preset.naming, replace(wanted, kind=self.kind)
        extensions = {"txt"}.union(*(kind.extensions for kind in KINDS.values()))
        found = {
            name.removeprefix("usr/share/"): data
            for deb in self.debs
            for name, data in deb.files(lambda name: extension_of(name) in extensions)
            if naming is None or naming.matches(name)
        }
        if self.preset and self.preset.captions:
            found |= {name: text for deb in self.debs for name, text in self.preset.captions(deb, found).items()}
        try:
            self.kind = kind_of(found, wanted)
        except ValueError as error:
            raise ValueError(f"the package '{self.debs[0].package}' {error}.{suggest('', PRESETS)}") from error
        return file_entries(found, found.__getitem__, self.kind, wanted, naming)

    def companions(self, taken: Mapping[str, str]) -> dict[str, bytes]:
        if self.preset is None or self.preset.companions is None:
            return {}
        return {name: data for deb in self.debs for name, data in self.preset.companions(deb, taken).items()}

    def _provenance(self) -> dict[str, Any]:
        each = [
            {
                "package": deb.package,
                "version": deb.version,
                "sha256": file_sha256(deb.path),
                "bytes": deb.path.stat().st_size,
            }
            for deb in self.debs
        ]
        several = {"package": " ".join(deb.package for deb in self.debs), "packages": each}
        about = {
            "licence": self.preset.licence if self.preset else "see the package's copyright file",
            "homepage": self.debs[0].fields.get("Homepage", ""),
        }
        return {"kind": "debian"} | (each[0] if len(each) == 1 else several) | about

    @staticmethod
    def _fetch(name: str, package: str, cache: Path) -> Path:
        try:
            return fetch(package, cache)
        except ValueError as error:
            if name in PRESETS:
                raise
            near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.6)
            hint = f" Did you mean debian:{near[0]}?" if near else ""
            raise ValueError(f"{error}{hint}") from error


def _preset_of(package: str, wanted: Wanted) -> Preset | None:
    """The first preset that reads a package which was named or given itself."""
    suits = (one for one in PRESETS.values() if package in one.packages and wanted.kind in (None, one.kind))
    return next(suits, None)
