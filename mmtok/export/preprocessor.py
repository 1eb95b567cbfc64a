"""`preprocessor_config.json`: what a signal must be, and how many positions it has then; a table of modalities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmtok.codes import CodeSpec
from mmtok.tokenizers.base import Tokenizer

_PROCESSOR = "processing_mmtok.MmtokProcessor"


def preprocessor(tokenizer: Tokenizer) -> dict[str, Any]:
    """That of a tokenizer."""
    return _OF[tokenizer.spec.modality](tokenizer)


def _pictures(tokenizer: Tokenizer) -> dict[str, Any]:
    step = tokenizer.spec.downsample
    return {
        "auto_map": {"AutoImageProcessor": _PROCESSOR, "AutoProcessor": _PROCESSOR},
        "image_processor_type": "MmtokProcessor",
        "channels": tokenizer.spec.channels,
        "value_range": [-1.0, 1.0],
        "size": None,
        "interpolation": "bicubic",
        "trained_size": getattr(tokenizer.config, "image_size", None),
        "downsample": step,
        **_extent(tokenizer.spec),
    }


def _extent(spec: CodeSpec) -> dict[str, Any]:
    """How many codes a picture gets."""
    step, filled = spec.downsample, "the last row and column are repeated to fill it"
    if spec.positions is None:
        return {"grid": f"ceil(height / {step}) x ceil(width / {step}); {filled}"}
    return {"positions": spec.positions, "nested": spec.nested, "multiple": f"{step} pixels a side; {filled}"}


def _sounds(tokenizer: Tokenizer) -> dict[str, Any]:
    spec = tokenizer.spec
    return {
        "auto_map": {"AutoFeatureExtractor": _PROCESSOR, "AutoProcessor": _PROCESSOR},
        "feature_extractor_type": "MmtokProcessor",
        "sampling_rate": spec.sample_rate,
        "feature_size": spec.channels,
        "value_range": [-1.0, 1.0],
        "normalize": getattr(tokenizer.config, "normalize", "none"),
        "downsample": spec.downsample,
        "frames": f"ceil(samples / {spec.downsample}); silence fills the last one",
    }


def _vectors(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "auto_map": {"AutoFeatureExtractor": _PROCESSOR, "AutoProcessor": _PROCESSOR},
        "feature_extractor_type": "MmtokProcessor",
        "width": tokenizer.spec.channels,
        "standardize": getattr(tokenizer.config, "standardize", False),
        "positions": "1 a vector",
    }


_OF: dict[str, Callable[[Tokenizer], dict[str, Any]]] = {"image": _pictures, "audio": _sounds, "vector": _vectors}
