"""Plugins that a model folder names: imported only from where the user put packages, never from the folder itself.

Python looks for modules in the working directory too, so that the config.json of a downloaded folder could otherwise
run what lies beside it.
"""

from __future__ import annotations

import site
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from mmtok.registry import load_plugins


def load_trusted(names: Sequence[str], folder: Path) -> None:
    """Import the plugins of a folder, where they lie outside of it and of the working directory.

    Args:
        names: of modules. Those imported already are the user's own choice, wherever they lie.
        folder: that names them.

    Raises:
        ValueError: a plugin is not there, or lies where a stranger may have put it; says where and what to do.
    """
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"plugins: {name!r} is no name of a module.")
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            # find_spec imports the packages around a module: each was looked at in the round before.
            _check(".".join(parts[:count]), name, folder)
        load_plugins([name])


def refuse_unknown(names: Sequence[str]) -> None:
    """Raise a ValueError that names the first plugin which is not imported yet."""
    for name in names:
        if name not in sys.modules:
            raise ValueError(f"it needs the plugin '{name}', and no code is to be run. Import it first, or allow code.")


def _check(module: str, plugin: str, folder: Path) -> None:
    if module in sys.modules:
        return
    remedy = "Install it as a package, or import it yourself first."
    spec = find_spec(module)
    if spec is None:
        raise ValueError(f"plugins: there is no module '{module}' for the plugin '{plugin}'. {remedy}")
    installed = [Path(place).resolve() for place in _installed()]
    for file in _files(spec):
        for where in (folder.resolve(), Path.cwd().resolve()):
            if file.is_relative_to(where) and not any(file.is_relative_to(place) for place in installed):
                raise ValueError(
                    f"plugins: '{plugin}' would be imported from {file}, which may have come with the model, and was "
                    f"not run. {remedy}"
                )


def _files(spec: ModuleSpec) -> list[Path]:
    """Where the code of a module may come from; a package without __init__.py has several places."""
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location and spec.origin else [])]
    return [Path(place).resolve() for place in places]


def _installed() -> list[str]:
    """Of packages, also where an environment lies in the working directory."""
    paths = sysconfig.get_paths()
    return [paths["purelib"], paths["platlib"], paths["stdlib"], site.getusersitepackages()]
