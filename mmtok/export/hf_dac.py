"""DAC of transformers (`DacModel`) and the tokenizer that is the same here: configuration and weights.

Equal in latents, codes and waveform, odd strides included: at 2-4-5-8 both give 31,992 samples for 100 frames, and the
tokenizer pads what is missing (audio.md trap 23).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from mmtok.export.hf_state import Blocks, Files, Names, flipped, module, renamed, seanet_of, under
from mmtok.export.kinds import CODEC, Configs
from mmtok.export.reading import TRANSFORMERS_WEIGHTS, read_folder
from mmtok.networks.seanet import SEANetConfig
from mmtok.networks.weight_norm import as_plain
from mmtok.tokenizers.base import Tokenizer

MODEL, LIBRARY, KIND, WEIGHTS = "DacModel", "transformers", CODEC, TRANSFORMERS_WEIGHTS
read = read_folder


def knows(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the class."""
    return config.get("model_type") == "dac"


def config_of(config: Mapping[str, Any]) -> Blocks:
    """The blocks `tokenizer` and `quantizer` of a recipe that is the model of a `config.json`."""
    channels = config.get("encoder_hidden_size", 64)
    strides = tuple(config.get("downsampling_ratios", (2, 4, 8, 8)))
    dim = channels * 2 ** len(strides)
    if config.get("hidden_size", dim) != dim:
        raise ValueError(
            f"DacModel with hidden_size={config['hidden_size']} cannot be expressed; only encoder_hidden_size x "
            f"2 ^ {len(strides)} = {dim} can, which is what transformers sets by itself."
        )
    encoder = {
        "name": "seanet",
        "channels": channels,
        "decoder_channels": config.get("decoder_hidden_size", 1536),
        "strides": strides,
        "latent_kernel": 3,
        "dilations": (1, 3, 9),
        "residual_kernel": 7,
        "compress": 1,
        "activation": "snake",
        "causal": False,
        "transpose_padding": "dac",
        "tanh": True,
    }
    return {
        "tokenizer": {
            "name": "audio",
            "sample_rate": config.get("sampling_rate", 16_000),
            "channels": 1,
            "dim": dim,
            "encoder": encoder,
        },
        "quantizer": {
            "name": "rq",
            "codebook_size": config.get("codebook_size", 1024),
            "code_dim": config.get("codebook_dim", 8),
            "depth": config.get("n_codebooks", 9),
            "cosine": True,
            "learn": "gradient",
            "residual_grad": "pass",
            "dropout": float(config.get("quantizer_dropout", 0.0)),
            "commitment_weight": config.get("commitment_loss_weight", 0.25),
            "codebook_weight": config.get("codebook_loss_weight", 1.0),
        },
    }


def files_of(configs: Configs) -> Files:
    """The nearest configuration of a `DacModel`.

    Raises:
        ValueError: codes without projections, which the model always has.
    """
    tokenizer, encoder, quantizer = CODEC.parts(configs, MODEL)
    if quantizer.code_dim in (0, quantizer.dim):
        raise ValueError(f"DacModel cannot express quantizer.code_dim={quantizer.code_dim}; only less than the dim.")
    config = {
        "model_type": "dac",
        "architectures": [MODEL],
        "sampling_rate": tokenizer.sample_rate,
        "encoder_hidden_size": encoder.channels,
        "hidden_size": encoder.channels * 2 ** len(encoder.strides),
        "decoder_hidden_size": encoder.width,
        "downsampling_ratios": list(encoder.strides),
        "upsampling_ratios": list(reversed(encoder.strides)),
        "hop_length": prod(encoder.strides),
        "n_codebooks": quantizer.depth,
        "codebook_size": quantizer.codebook_size,
        "codebook_dim": quantizer.code_dim,
        "quantizer_dropout": quantizer.dropout,
        "commitment_loss_weight": quantizer.commitment_weight,
        "codebook_loss_weight": quantizer.codebook_weight,
    }
    preprocessor = {
        "feature_extractor_type": "DacFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": tokenizer.sample_rate,
        "hop_length": prod(encoder.strides),
        "padding_side": "right",
        "padding_value": 0.0,
    }
    return Files(config, preprocessor)


def state_from(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of a `DacModel`, weight-normed or not -> of the tokenizer.

    Load it with `strict=False`: `usage` and `probe` are of training, unknown there, and stay.
    """
    encoder = seanet_of(tokenizer)
    out = renamed(state, flipped(_modules(encoder)), encoder.norm == "weight")
    for level in range(tokenizer.quantizer.depth):
        for ours, theirs in _projections(level):
            own = as_plain(module(state, theirs))
            out[f"{ours}.weight"], out[f"{ours}.bias"] = own["weight"][..., 0], own["bias"]
        out[f"quantizer.parts.{level}.codebook"] = module(state, _codebook(level))["weight"]
        out[f"quantizer.parts.{level}.updates"] = torch.ones((), dtype=torch.int64)  # so that no k-means begins
    return out


def state_to(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of the tokenizer -> of a `DacModel`, which has plain weights."""
    out = renamed(state, _modules(seanet_of(tokenizer)), normed=False)
    for level in range(tokenizer.quantizer.depth):
        for ours, theirs in _projections(level):
            own = module(state, ours)
            out[f"{theirs}.weight"], out[f"{theirs}.bias"] = own["weight"][..., None], own["bias"]
        out[f"{_codebook(level)}.weight"] = module(state, f"quantizer.parts.{level}")["codebook"]
    return out


def _codebook(level: int) -> str:
    return f"quantizer.quantizers.{level}.codebook"


def _projections(level: int) -> Names:
    ours, theirs = f"quantizer.parts.{level}", f"quantizer.quantizers.{level}"
    return [(f"{ours}.project_in", f"{theirs}.in_proj"), (f"{ours}.project_out", f"{theirs}.out_proj")]


def _modules(config: SEANetConfig) -> Names:
    return [
        *under("encoder", _half(config, "conv1")),
        *under("decoder", _half(config, "conv_t1")),
    ]


def _half(config: SEANetConfig, resample: str) -> Iterator[tuple[str, str]]:
    yield "conv_in", "conv1"
    for index in range(len(config.strides)):
        block = f"blocks.{index}"
        for layer in range(len(config.dilations)):
            for ours, theirs in (("act1", "snake1"), ("conv1", "conv1"), ("act2", "snake2"), ("conv2", "conv2")):
                yield f"{block}.residuals.{layer}.branch.{ours}", f"block.{index}.res_unit{layer + 1}.{theirs}"
        yield f"{block}.act", f"block.{index}.snake1"
        yield f"{block}.resample", f"block.{index}.{resample}"
    yield "act_out", "snake1"
    yield "conv_out", "conv2"
