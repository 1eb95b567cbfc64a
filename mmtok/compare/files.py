"""Files of a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from datamodules.shardindex import write_atomically
from mmtok.schema import ConfigError


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Written whole or not at all, in place of what was there, though another process may do the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode())


def read_measured(path: Path) -> dict[str, Any]:
    """What a measure left: `options`, `figures` and more.

    Raises:
        ConfigError: the file is damaged; names it.
    """
    said = "it holds no figures"
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        said = str(error)
    else:
        with suppress(TypeError, KeyError):
            if isinstance(plain["options"], dict) and isinstance(plain["figures"], dict):
                return dict(plain)
    raise ConfigError(f"{path} is damaged ({said}). Remove it: the same command measures again.")
