"""JanusVQVAE of transformers, the tokenizer of Janus (LlamaGen's VQ-16), and the tokenizer that is the same here.

It takes squares of one size: `decode` refuses any other number of ids. It compares latents with the rows of the
codebook as they are, but normalises the rows when it decodes. So only rows of length 1 mean the same both ways, and
other rows are refused, whichever way they go (downstream.md 3.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtok.export.hf_state import Blocks, Files
from mmtok.export.kinds import VQGAN, Configs
from mmtok.export.pictures import codes_of, encoder_of, from_model, require_unit, single_groups, to_model
from mmtok.export.reading import CONFIG, TRANSFORMERS_WEIGHTS, mapping, read_weights
from mmtok.schema import read_json
from mmtok.tokenizers.base import Tokenizer

MODEL, LIBRARY, KIND, WEIGHTS = "JanusVQVAE", "transformers", VQGAN, TRANSFORMERS_WEIGHTS

_WHOLE, _PART = "janus", "model.vqmodel."
"""`model_type` of the whole language model, and where in it the tokenizer is."""


def knows(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the class, or of a Janus that has one inside."""
    return config.get("model_type") in ("janus_vqgan", _WHOLE)


def read(path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The configuration and the weights in a folder; of a whole Janus only its tokenizer's.

    Raises:
        ValueError: a file is missing, damaged or a pickle; says which.
    """
    config = read_json(path / CONFIG)
    if config.get("model_type") == _WHOLE:
        return {**mapping(config, "vq_config"), "model_type": "janus_vqgan"}, read_weights(path, _PART)
    return config, read_weights(path)


def config_of(config: Mapping[str, Any]) -> Blocks:
    """The blocks `tokenizer` and `quantizer` of a recipe that is the model of a `config.json`.

    Raises:
        ValueError: the model does what no configuration of `conv2d` does; names the field.
    """
    if config.get("double_latent", False):
        raise ValueError("JanusVQVAE with double_latent=True cannot be expressed; only False can.")
    channels = config.get("in_channels", 3)
    if config.get("out_channels", 3) != channels:
        raise ValueError(f"JanusVQVAE with out_channels={config.get('out_channels', 3)} cannot be expressed; only as "
                         f"many as in_channels={channels} can.")  # fmt: skip
    multipliers = tuple(config.get("channel_multiplier", (1, 1, 2, 2, 4)))
    factor, blocks = 2 ** (len(multipliers) - 1), config.get("num_res_blocks", 2)
    encoder = {
        "name": "conv2d",
        "channels": config.get("base_channels", 128),
        "multipliers": multipliers,
        "blocks": blocks,
        "decoder_blocks": blocks + 1,
        "attention": (factor,),
        "mid_attention": True,
        "dropout": float(config.get("dropout", 0.0)),
        "z_channels": config.get("latent_channels", 256),
    }
    return {
        "tokenizer": {
            "name": "image",
            "image_size": config.get("num_patches", 32) * factor,
            "channels": channels,
            "dim": config.get("embed_dim", 8),
            "encoder": encoder,
        },
        # As LlamaGen trains it.
        "quantizer": {
            "name": "vq",
            "codebook_size": config.get("num_embeddings", 16384),
            "l2": True,
            "learn": "gradient",
        },
    }


def files_of(configs: Configs) -> Files:
    """The nearest configuration of a `JanusVQVAE`.

    Raises:
        ValueError: the pictures are of no whole number of positions.
    """
    tokenizer, encoder, quantizer = VQGAN.parts(configs, MODEL)
    factor = 2 ** (len(encoder.widths) - 1)
    if tokenizer.image_size % factor:
        raise ValueError(f"{MODEL} cannot express tokenizer.image_size={tokenizer.image_size}; only multiples of the "
                         f"stride, {factor}.")  # fmt: skip
    single_groups(configs, MODEL)
    config = {
        "model_type": "janus_vqgan",
        "architectures": [MODEL],
        "embed_dim": quantizer.code_dim or quantizer.dim,
        "num_embeddings": quantizer.codebook_size,
        "double_latent": False,
        "latent_channels": encoder.z_channels or encoder.dim,
        "in_channels": tokenizer.channels,
        "out_channels": tokenizer.channels,
        "base_channels": encoder.channels,
        "channel_multiplier": list(encoder.multipliers),
        "num_res_blocks": encoder.blocks,
        "dropout": encoder.dropout,
        "num_patches": tokenizer.image_size // factor,
    }
    side = {"height": tokenizer.image_size, "width": tokenizer.image_size}
    half = [0.5] * tokenizer.channels
    # As `preprocess(fit=True)` does; JanusImageProcessor pads to a square instead of cutting one out.
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": tokenizer.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": tokenizer.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": half,
        "image_std": half,
    }
    return Files(config, preprocessor)


def state_from(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of a `JanusVQVAE` -> of the tokenizer.

    Raises:
        ValueError: the rows of the codebook have other lengths than 1.
    """
    out = from_model(state, tokenizer, partial(_place, levels=len(encoder_of(tokenizer).widths)))
    require_unit(
        out["quantizer.codebook"],
        "JanusVQVAE.encode compares latents with them as they are, and decode normalises them, so that its own ids do "
        "not come back. Normalise quantize.embedding.weight first, as Janus' own code does.",
    )
    return out


def state_to(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of the tokenizer -> of a `JanusVQVAE`.

    Raises:
        ValueError: the codes have other lengths than 1.
    """
    require_unit(codes_of(tokenizer), "JanusVQVAE normalises them when it decodes. Train with quantizer.l2=true.")
    return to_model(state, tokenizer, partial(_place, levels=len(encoder_of(tokenizer).widths)))


def _place(name: str, levels: int) -> str:
    # Ours are counted from the finest, as taming's; theirs in the order they run.
    return re.sub(r"^decoder\.up\.(\d+)\.", lambda found: f"decoder.up.{levels - 1 - int(found[1])}.", name)
