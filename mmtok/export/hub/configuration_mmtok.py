"""The `config.json` of a bundle, for transformers."""

from __future__ import annotations

from transformers import PretrainedConfig


class MmtokConfig(PretrainedConfig):
    """The blocks `tokenizer` and `quantizer` of a recipe, and what belongs to their weights."""

    model_type = "mmtok"
