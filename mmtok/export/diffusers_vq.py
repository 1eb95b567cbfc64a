"""VQModel of diffusers and the tokenizer that is the same here: configuration and weights.

Its codes are those with the least distance. Codes of one length chosen by direction (`quantizer.l2`) are the same ones.
What is written looks ids up: `model.decode(ids, force_not_quantize=True, shape=(B, H, W, D))`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from mmtok.export.hf_state import Blocks, Files
from mmtok.export.kinds import VQGAN, Configs
from mmtok.export.pictures import codes_of, encoder_of, from_model, require_unit, single_groups, to_model
from mmtok.export.reading import DIFFUSERS_WEIGHTS, read_folder
from mmtok.quantizers.vq import VQConfig
from mmtok.tokenizers.base import Tokenizer

MODEL, LIBRARY, KIND, WEIGHTS = "VQModel", "diffusers", VQGAN, DIFFUSERS_WEIGHTS
read = read_folder

_REQUIRED = {"act_fn": "silu", "norm_type": "group"}
"""Fields, with their defaults, for which there is one value here."""
_DOWN, _UP = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")
"""Levels without attention, and with it."""
_RENAMED = {
    r"^down\.(\d+)\.": r"down_blocks.\1.",
    r"\.block\.": r".resnets.",
    r"\.attn\.": r".attentions.",
    r"\.(down|up)sample\.": r".\1samplers.0.",
    r"^mid\.block_1\.": "mid_block.resnets.0.",
    r"^mid\.block_2\.": "mid_block.resnets.1.",
    r"^mid\.attn_1\.": "mid_block.attentions.0.",
    r"(attentions\.\d+)\.norm\.": r"\1.group_norm.",
    r"(attentions\.\d+)\.([qkv])\.": r"\1.to_\2.",
    r"\.proj_out\.": ".to_out.0.",
    r"\.nin_shortcut\.": ".conv_shortcut.",
    r"^norm_out\.": "conv_norm_out.",
}
"""Our names inside encoder and decoder, and theirs."""
_OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""How older versions called attention."""


def knows(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the class."""
    return config.get("_class_name") == MODEL


def config_of(config: Mapping[str, Any]) -> Blocks:
    """The blocks `tokenizer` and `quantizer` of a recipe that is the model of a `config.json`.

    Raises:
        ValueError: the model does what no configuration of `conv2d` does; names the field.
    """
    for name, want in _REQUIRED.items():
        if config.get(name, want) != want:
            raise ValueError(f"VQModel with {name}={config[name]!r} cannot be expressed; only {want!r} can.")
    if config.get("out_channels", 3) != config.get("in_channels", 3):
        raise ValueError(f"VQModel with out_channels={config.get('out_channels', 3)} cannot be expressed; only as many "
                         f"as in_channels={config.get('in_channels', 3)} can.")  # fmt: skip
    widths = tuple(config.get("block_out_channels", (64,)))
    if any(width % widths[0] for width in widths):
        raise ValueError(f"VQModel with block_out_channels={list(widths)} cannot be expressed; only multiples of the "
                         "first can.")  # fmt: skip
    latents, blocks = config.get("latent_channels", 3), config.get("layers_per_block", 1)
    size = config.get("sample_size", 32)
    encoder = {
        "name": "conv2d",
        "channels": widths[0],
        "multipliers": tuple(width // widths[0] for width in widths),
        "blocks": blocks,
        "decoder_blocks": blocks + 1,
        "attention": _attention(config, len(widths)),
        "mid_attention": config.get("mid_block_add_attention", True),
        "groups": config.get("norm_num_groups", 32),
        "z_channels": latents,
    }
    return {
        "tokenizer": {
            "name": "image",
            "image_size": size if isinstance(size, int) else max(size),
            "channels": config.get("in_channels", 3),
            "dim": config.get("vq_embed_dim") or latents,
            "encoder": encoder,
        },
        # As its loss has them, where the two weights are exchanged (`legacy`).
        "quantizer": {
            "name": "vq",
            "codebook_size": config.get("num_vq_embeddings", 256),
            "learn": "gradient",
            "commitment_weight": 1.0,
            "codebook_weight": 0.25,
        },
    }


def _attention(config: Mapping[str, Any], levels: int) -> tuple[int, ...]:
    """Downsampling factors with attention, which must be the same ones on both sides."""
    found = []
    for name, kinds in (("down_block_types", _DOWN), ("up_block_types", _UP)):
        types = list(config.get(name, kinds[:1]))
        if len(types) != levels or not set(types) <= set(kinds):
            raise ValueError(f"VQModel with {name}={types} cannot be expressed; only {levels} of {', '.join(kinds)}.")
        found.append([kinds.index(kind) for kind in types])
    if found[0] != found[1][::-1]:
        raise ValueError("VQModel with attention at other levels in down_block_types than in up_block_types cannot be "
                         "expressed.")  # fmt: skip
    return tuple(2**level for level, attends in enumerate(found[0]) if attends)


def files_of(configs: Configs) -> Files:
    """The nearest configuration of a `VQModel`."""
    tokenizer, encoder, quantizer = VQGAN.parts(configs, MODEL)
    attends = [2**level in encoder.attention for level in range(len(encoder.widths))]
    config = {
        "_class_name": MODEL,
        "in_channels": tokenizer.channels,
        "out_channels": tokenizer.channels,
        "down_block_types": [_DOWN[at] for at in attends],
        "up_block_types": [_UP[at] for at in reversed(attends)],
        "block_out_channels": list(encoder.widths),
        "layers_per_block": encoder.blocks,
        "latent_channels": encoder.z_channels or encoder.dim,
        "sample_size": tokenizer.image_size,
        "num_vq_embeddings": quantizer.codebook_size,
        "norm_num_groups": single_groups(configs, MODEL),
        "vq_embed_dim": quantizer.code_dim or quantizer.dim,
        "mid_block_add_attention": encoder.mid_attention,
        "lookup_from_codebook": True,
        **_REQUIRED,
    }
    return Files(config)


def state_from(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of a `VQModel` -> of the tokenizer."""
    renamed = {}
    for name, value in state.items():
        for old, new in _OLD.items():
            name = name.replace(old, new)
        renamed[name] = value
    return from_model(renamed, tokenizer, partial(_place, levels=len(encoder_of(tokenizer).widths)))


def state_to(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of the tokenizer -> of a `VQModel`.

    Raises:
        ValueError: codes that are chosen by direction have lengths.
    """
    config = tokenizer.quantizer.config
    assert isinstance(config, VQConfig)
    if config.l2:
        require_unit(codes_of(tokenizer), "VQModel chooses by distance, which is quantizer.l2 only of length 1.")
    out = to_model(state, tokenizer, partial(_place, levels=len(encoder_of(tokenizer).widths)))
    return {
        name: value[..., 0, 0] if ".attentions." in name and value.dim() == 4 else value for name, value in out.items()
    }


def _place(name: str, levels: int) -> str:
    half, inside = name.split(".", 1)
    for pattern, into in _RENAMED.items():
        inside = re.sub(pattern, into, inside)
    # Ours are counted from the finest, theirs in the order they run.
    inside = re.sub(r"^up\.(\d+)\.", lambda found: f"up_blocks.{levels - 1 - int(found[1])}.", inside)
    return f"{half}.{inside}"
