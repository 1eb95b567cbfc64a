"""EnCodec of transformers (`EncodecModel`) and the tokenizer that is the same here: configuration and weights.

Equal in latents, codes and waveform for signals of whole frames. Of others the model reflects the end at each layer,
and tokenizers here pad it with zeros first, so that the last frames differ. The 48 kHz model is of another kind (its
norms see whole segments, whose loudness travels beside the codes) and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import ceil, inf, log2, nextafter, prod
from typing import Any

import torch
from torch import Tensor

from mmtok.export.hf_state import Blocks, Files, Names, flipped, module, renamed, seanet_of, under
from mmtok.export.kinds import CODEC, Configs
from mmtok.export.reading import TRANSFORMERS_WEIGHTS, read_folder
from mmtok.networks.seanet import SEANetConfig
from mmtok.tokenizers.base import Tokenizer

MODEL, LIBRARY, KIND, WEIGHTS = "EncodecModel", "transformers", CODEC, TRANSFORMERS_WEIGHTS
read = read_folder

_REQUIRED = {"norm_type": "weight_norm", "normalize": False, "chunk_length_s": None, "trim_right_ratio": 1.0}
"""Fields, with their defaults, for which there is one value here."""
_PADS = {"reflect": "reflect", "constant": "zeros"}


def knows(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the class."""
    return config.get("model_type") == "encodec"


def config_of(config: Mapping[str, Any]) -> Blocks:
    """The blocks `tokenizer` and `quantizer` of a recipe that is the model of a `config.json`.

    Raises:
        ValueError: the model does what no configuration of `seanet` does; names the field.
    """
    for name, want in _REQUIRED.items():
        if config.get(name, want) != want:
            raise ValueError(f"EncodecModel with {name}={config[name]!r} cannot be expressed; only {want!r} can.")
    if config.get("pad_mode", "reflect") not in _PADS:
        raise ValueError(f"EncodecModel with pad_mode={config['pad_mode']!r} cannot be expressed; use {list(_PADS)}.")
    dim = config.get("hidden_size", 128)
    if (config.get("codebook_dim") or dim) != dim:
        raise ValueError(f"EncodecModel with codebook_dim={config['codebook_dim']} and hidden_size={dim} cannot run.")
    growth, layers = config.get("dilation_growth_rate", 2), config.get("num_residual_layers", 1)
    encoder = {
        "name": "seanet",
        "channels": config.get("num_filters", 32),
        "strides": tuple(reversed(config.get("upsampling_ratios", (8, 5, 4, 2)))),
        "kernel": config.get("kernel_size", 7),
        "latent_kernel": config.get("last_kernel_size", 7),
        "last_kernel": config.get("last_kernel_size", 7),
        "dilations": tuple(growth**layer for layer in range(layers)),
        "residual_kernel": config.get("residual_kernel_size", 3),
        "compress": config.get("compress", 2),
        "shortcut": "conv" if config.get("use_conv_shortcut", True) else "identity",
        "core": "lstm",
        "core_layers": config.get("num_lstm_layers", 2),
        "causal": config.get("use_causal_conv", True),
        "pad_mode": _PADS[config.get("pad_mode", "reflect")],
    }
    rate, size = config.get("sampling_rate", 24_000), config.get("codebook_size", 1024)
    # As the model counts its levels from its greatest bit rate.
    depth = int(1000 * config.get("target_bandwidths", (24.0,))[-1] // _level_bits(rate, encoder["strides"], size))
    return {
        "tokenizer": {
            "name": "audio",
            "sample_rate": rate,
            "channels": config.get("audio_channels", 1),
            "dim": dim,
            "encoder": encoder,
        },
        "quantizer": {"name": "rq", "codebook_size": size, "depth": depth},
    }


def _level_bits(rate: int, strides: Iterable[int], size: int) -> int:
    """Bits a second of one level, as the model counts them."""
    return ceil(rate / prod(strides)) * ceil(log2(size))


def files_of(configs: Configs) -> Files:
    """The nearest configuration of an `EncodecModel`; its bit rates are those of 1, 2, 4, ... and all levels."""
    tokenizer, encoder, quantizer = CODEC.parts(configs, MODEL)
    bits = _level_bits(tokenizer.sample_rate, encoder.strides, quantizer.codebook_size)
    levels = sorted({*(2**n for n in range(quantizer.depth.bit_length())), quantizer.depth})
    dilations = encoder.dilations
    config = {
        "model_type": "encodec",
        "architectures": [MODEL],
        "sampling_rate": tokenizer.sample_rate,
        "audio_channels": tokenizer.channels,
        "hidden_size": tokenizer.dim,
        "num_filters": encoder.channels,
        "upsampling_ratios": list(reversed(encoder.strides)),
        "kernel_size": encoder.kernel,
        "last_kernel_size": encoder.last_kernel,
        "residual_kernel_size": encoder.residual_kernel,
        "num_residual_layers": len(dilations),
        "dilation_growth_rate": dilations[1] if len(dilations) > 1 else 2,
        "compress": encoder.compress,
        "use_conv_shortcut": encoder.shortcut == "conv",
        "num_lstm_layers": encoder.core_layers,
        "use_causal_conv": encoder.causal,
        "pad_mode": {ours: theirs for theirs, ours in _PADS.items()}[encoder.pad_mode],
        "codebook_size": quantizer.codebook_size,
        "codebook_dim": tokenizer.dim,
        "target_bandwidths": [_bandwidth(count * bits) for count in levels],
        **_REQUIRED,
    }
    preprocessor = {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": tokenizer.channels,
        "sampling_rate": tokenizer.sample_rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "chunk_length_s": None,
        "overlap": None,
    }
    return Files(config, preprocessor)


def _bandwidth(bits: int) -> float:
    """Bits in thousands, not below themselves when they are multiplied again: the model rounds its levels down."""
    thousands = bits / 1000
    return thousands if 1000 * thousands >= bits else nextafter(thousands, inf)


def state_from(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of an `EncodecModel` -> of the tokenizer.

    Load it with `strict=False`: `probe` is of training, unknown there, and stays.
    """
    encoder = seanet_of(tokenizer)
    out = renamed(state, flipped(_modules(encoder)), encoder.norm == "weight")
    for level in range(tokenizer.quantizer.depth):
        codebook = module(state, f"quantizer.layers.{level}.codebook")
        own = f"quantizer.parts.{level}"
        out[f"{own}.codebook"], out[f"{own}.usage"] = codebook["embed"], codebook["cluster_size"]
        out[f"{own}.updates"] = torch.ones((), dtype=torch.int64)  # so that no k-means begins
    return out


def state_to(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of the tokenizer -> of an `EncodecModel`, which keeps its convolutions as pairs (g, v)."""
    out = renamed(state, _modules(seanet_of(tokenizer)), normed=True)
    for level in range(tokenizer.quantizer.depth):
        own = module(state, f"quantizer.parts.{level}")
        name = f"quantizer.layers.{level}.codebook"
        out[f"{name}.embed"], out[f"{name}.cluster_size"] = own["codebook"], own["usage"]
        out[f"{name}.embed_avg"] = own["codebook"] * own["usage"][:, None]
        out[f"{name}.inited"] = torch.ones(1)
    return out


def _modules(config: SEANetConfig) -> Names:
    return [*under("encoder", _encoder(config)), *under("decoder", _decoder(config))]


def _encoder(config: SEANetConfig) -> Iterator[tuple[str, str]]:
    yield "conv_in", "layers.0.conv"
    place = 1  # among theirs, where activations count
    for index in range(len(config.strides)):
        for layer in range(len(config.dilations)):
            yield from residual_names(config, f"blocks.{index}.residuals.{layer}", f"layers.{place}")
            place += 1
        yield f"blocks.{index}.resample", f"layers.{place + 1}.conv"
        place += 2
    yield "core.lstm", f"layers.{place}.lstm"
    yield "conv_out", f"layers.{place + 2}.conv"


def _decoder(config: SEANetConfig) -> Iterator[tuple[str, str]]:
    yield "conv_in", "layers.0.conv"
    yield "core.lstm", "layers.1.lstm"
    place = 2
    for index in range(len(config.strides)):
        yield f"blocks.{index}.resample", f"layers.{place + 1}.conv"
        place += 2
        for layer in range(len(config.dilations)):
            yield from residual_names(config, f"blocks.{index}.residuals.{layer}", f"layers.{place}")
            place += 1
    yield "conv_out", f"layers.{place + 1}.conv"


def residual_names(config: SEANetConfig, ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """The layers of a residual block, here and there."""
    yield f"{ours}.branch.conv1", f"{theirs}.block.1.conv"
    yield f"{ours}.branch.conv2", f"{theirs}.block.3.conv"
    if config.shortcut == "conv":
        yield f"{ours}.shortcut", f"{theirs}.shortcut.conv"
