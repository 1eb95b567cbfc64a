"""Files of a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.shardindex import write_atomically


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Written whole or not at all, in place of what was there, though another process may do the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode())
