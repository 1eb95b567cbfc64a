"""Preprocessing, network and quantizer in one object, for training and for use."""

from mmtok.tokenizers import audio, image, image_1d, subword, vector, vq_bytes  # noqa: F401, they register
from mmtok.tokenizers.base import (
    Latents,
    Reconstruction,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
    register_tokenizer,
    tokenizers,
)  # fmt: skip

__all__ = [
    "Latents", "Reconstruction", "Tokenizer", "TokenizerConfig", "build_tokenizer", "register_tokenizer", "tokenizers",
]  # fmt: skip
