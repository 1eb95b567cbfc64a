"""Mimi of transformers (`MimiModel`) and the tokenizer that is the same here: read, not written.

Equal in latents, codes and waveform for signals of whole frames. Of others the model extends each layer's input by
zeros, and tokenizers here the signal's, so that the last frame may differ. Streams give what one pass gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from mmtok.export.hf_encodec import residual_names
from mmtok.export.hf_state import Blocks, Names, flipped, module, renamed, seanet_of, under
from mmtok.export.reading import read_folder
from mmtok.networks.seanet import SEANetConfig
from mmtok.tokenizers.base import Tokenizer

MODEL = "MimiModel"
read = read_folder

_REQUIRED: dict[str, Any] = {
    "use_causal_conv": True,
    "trim_right_ratio": 1.0,
    "attention_bias": False,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
}
"""Fields, with their defaults, for which there is one value here."""
_PADS = {"constant": "zeros", "replicate": "replicate", "reflect": "reflect"}
_LEAST = 1e-5
"""The usage, in the model, that the sum behind a code is divided by at least."""


def knows(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the class."""
    return config.get("model_type") == "mimi"


def config_of(config: Mapping[str, Any]) -> Blocks:
    """The blocks `tokenizer` and `quantizer` of a recipe that is the model of a `config.json`.

    Raises:
        ValueError: the model does what no configuration of `seanet` and `split` does; names the field.
    """
    dim, heads = config.get("hidden_size", 512), config.get("num_attention_heads", 8)
    inner = config.get("vector_quantization_hidden_dimension", 256)
    rope = config.get("rope_parameters") or {}
    fits = _REQUIRED | {
        "intermediate_size": 4 * dim,
        "num_key_value_heads": heads,
        "head_dim": dim // heads,
        "upsample_groups": dim,
        "codebook_dim": inner,
    }
    given: Mapping[str, Any] = {
        "intermediate_size": 2048,
        "num_key_value_heads": 8,
        "upsample_groups": 512,
        "codebook_dim": 256,
    } | dict(config)
    # Not in the configuration of a whole model.
    dropped = [name for name in ("encoder_config", "decoder_config") if name in config and config[name] is None]
    if dropped:
        raise ValueError(f"MimiModel with {dropped[0]}=None has one half only, and cannot be expressed; only both can.")
    for name, want in fits.items():
        if given.get(name) is not None and given[name] != want:
            raise ValueError(f"MimiModel with {name}={given[name]!r} cannot be expressed; only {want!r} can.")
    if rope.get("rope_type", "default") != "default" or rope.get("rope_theta", 10_000.0) != 10_000.0:
        raise ValueError(f"MimiModel with rope_parameters={rope} cannot be expressed; only theta 10000 can.")
    if config.get("pad_mode", "constant") not in _PADS:
        raise ValueError(f"MimiModel with pad_mode={config['pad_mode']!r} cannot be expressed; only {list(_PADS)} can.")
    return {
        "tokenizer": {
            "name": "audio",
            "sample_rate": config.get("sampling_rate", 24_000),
            "channels": config.get("audio_channels", 1),
            "dim": dim,
            "encoder": _encoder(config, heads),
        },
        "quantizer": _quantizer(config, inner),
    }


def _encoder(config: Mapping[str, Any], heads: int) -> dict[str, Any]:
    strides = tuple(reversed(config.get("upsampling_ratios") or (8, 6, 5, 4)))
    rate = config.get("sampling_rate", 24_000)
    frames = config.get("frame_rate") or config.get("_frame_rate") or rate / (2 * prod(strides))
    growth, layers = config.get("dilation_growth_rate", 2), config.get("num_residual_layers", 1)
    return {
        "name": "seanet",
        "channels": config.get("num_filters", 64),
        "strides": strides,
        "kernel": config.get("kernel_size", 7),
        "latent_kernel": config.get("last_kernel_size", 3),
        "last_kernel": config.get("last_kernel_size", 3),
        "dilations": tuple(growth**layer for layer in range(layers)),
        "residual_kernel": config.get("residual_kernel_size", 3),
        "compress": config.get("compress", 2),
        "shortcut": "conv" if config.get("use_conv_shortcut", False) else "identity",
        "core": "attention",
        "core_at": "latents",
        "core_layers": config.get("num_hidden_layers", 8),
        "core_bias": False,
        "core_scale": float(config.get("layer_scale_initial_scale", 0.01)),
        "attention_heads": heads,
        "attention_window": config.get("sliding_window", 250),
        # As the model counts it, from rates.
        "latent_stride": int(ceil(rate / prod(strides)) / frames),
        "pad_mode": _PADS[config.get("pad_mode", "constant")],
        "norm": "none",
    }


def _quantizer(config: Mapping[str, Any], inner: int) -> dict[str, Any]:
    size, count = config.get("codebook_size", 2048), config.get("num_semantic_quantizers", 1)
    rest = config.get("num_quantizers", 32) - count
    semantic = {"name": "vq"} if count == 1 else {"name": "rq", "depth": count}
    return {
        "name": "split",
        "semantic": semantic | {"codebook_size": size},
        "acoustic": {"name": "rq", "depth": rest, "codebook_size": size},
        "inner_dim": inner,
    }


def state_from(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of a `MimiModel` as it is saved -> of the tokenizer."""
    config = seanet_of(tokenizer)
    out = renamed(state, flipped(_modules(config)), config.norm == "weight")
    for half in ("encoder", "decoder"):
        for layer in range(config.core_layers):
            out |= _block(
                module(state, f"{half}_transformer.layers.{layer}"),
                f"networks.{half}.core.attention{layer}",
                f"networks.{half}.core.feed{layer}",
            )
    for part, name in enumerate(("semantic", "acoustic")):
        out |= _levels(module(state, f"quantizer.{name}_residual_vector_quantizer"), part, config.dim)
    own = tokenizer.state_dict()
    # One semantic quantizer is no list of them here.
    return {name if name in own else name.replace("parts.0.parts.0.", "parts.0."): value for name, value in out.items()}


def _block(own: Mapping[str, Tensor], attention: str, feed: str) -> dict[str, Tensor]:
    """One layer of a transformer, whose queries, keys and values are one layer here."""
    given = {
        f"{attention}.project_out.weight": "self_attn.o_proj.weight",
        f"{attention}.scale": "self_attn_layer_scale.scale",
        f"{feed}.widen.weight": "mlp.fc1.weight",
        f"{feed}.narrow.weight": "mlp.fc2.weight",
        f"{feed}.scale": "mlp_layer_scale.scale",
    }
    for part in ("weight", "bias"):
        given[f"{attention}.norm.{part}"] = f"input_layernorm.{part}"
        given[f"{feed}.norm.{part}"] = f"post_attention_layernorm.{part}"
    parts = [f"self_attn.{name}_proj.weight" for name in "qkv"]
    if lost := sorted({*given.values(), *parts} - own.keys()):
        raise ValueError(f"The weights have no '{lost[0]}' in a transformer: they are of another architecture.")
    return {ours: own[theirs] for ours, theirs in given.items()} | {
        f"{attention}.project_in.weight": torch.cat([own[name] for name in parts])
    }


def _levels(own: Mapping[str, Tensor], part: int, dim: int) -> dict[str, Tensor]:
    """The codebooks of one part, kept as sums and counts, and the projections around it."""
    out: dict[str, Tensor] = {}
    for ours, theirs in (("project_in", "input_proj"), ("project_out", "output_proj")):
        # Left out where both sides are as wide; here they are always.
        out[f"quantizer.{ours}.{part}.weight"] = own.get(f"{theirs}.weight", torch.eye(dim)[..., None])[..., 0]
    depth = sum(name.endswith("embed_sum") for name in own)
    for level in range(depth):
        codebook = module(own, f"layers.{level}.codebook")
        usage, name = codebook["cluster_usage"], f"quantizer.parts.{part}.parts.{level}"
        out[f"{name}.codebook"] = codebook["embed_sum"] / usage.clamp(min=_LEAST)[:, None]
        out[f"{name}.usage"] = usage
        out[f"{name}.updates"] = torch.ones((), dtype=torch.int64)  # so that no k-means begins
    return out


def _modules(config: SEANetConfig) -> Names:
    names = [*under("encoder", _half(config, True)), *under("decoder", _half(config, False))]
    if config.latent_stride > 1:
        names += [
            ("networks.encoder.resample", "downsample.conv"),
            ("networks.decoder.resample", "upsample.conv"),
        ]
    return names


def _half(config: SEANetConfig, encodes: bool) -> Iterator[tuple[str, str]]:
    yield "conv_in", "layers.0.conv"
    place = 1  # among theirs, where activations count
    for index in range(len(config.strides)):
        if not encodes:
            yield f"blocks.{index}.resample", f"layers.{place + 1}.conv"
            place += 2
        for layer in range(len(config.dilations)):
            yield from residual_names(config, f"blocks.{index}.residuals.{layer}", f"layers.{place}")
            place += 1
        if encodes:
            yield f"blocks.{index}.resample", f"layers.{place + 1}.conv"
            place += 2
    yield "conv_out", f"layers.{place + 1}.conv"
