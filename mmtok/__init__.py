"""mmtok: train discrete tokenizers for images, audio, text and vectors, and hand them to language models."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # `mmtok.load` pulls in torch; `import mmtok` alone, and so `mmtok --help`, stays quick.
    if name == "load":
        from mmtok.loading import load

        return load
    raise AttributeError(f"module 'mmtok' has no attribute '{name}'")
