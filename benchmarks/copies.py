"""Published models of other libraries at their size with random weights, and tokenizers here with the same weights.

Weights go through folders, as the verbs write and read them: `mmtok export --as` and `from_pretrained` one way,
`save_pretrained` (or a checkpoint) and `mmtok import` the other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.export.folder import read_model, write_native
from mmtok.export.formats import FORMATS
from mmtok.networks.blocks1d import Snake
from mmtok.quantizers.base import Quantizer
from mmtok.quantizers.split import Split
from mmtok.quantizers.vq import VQ
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.tokenizers.base import Tokenizer

MARGIN = 1e-4
"""By which the best code must be nearer than the second, in squared distance, for ids to be compared (design)."""
Way = Literal["to", "from"]


class Sounds:
    """How a codec of transformers is called."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def input(self, generator: torch.Generator) -> Tensor:
        """A second of noise, in whole frames."""
        config = self.model.config
        hop = getattr(config, "frame_size", None) or config.hop_length
        samples = config.sampling_rate // hop * hop
        return (0.3 * torch.randn(1, 1, samples, generator=generator)).clamp(-1, 1)

    def latents(self, x: Tensor) -> Tensor:
        """Signals -> what is quantized, (B, T, D)."""
        z = self.model.encoder(x)
        return (z if isinstance(z, Tensor) else z.latents).mT

    def encode(self, x: Tensor) -> Tensor:
        """Signals -> ids (B, L, T), all levels."""
        if hasattr(self.model.config, "target_bandwidths"):
            return self.model.encode(x, bandwidth=self.model.config.target_bandwidths[-1]).audio_codes[0]
        return self.model.encode(x).audio_codes

    def decode(self, ids: Tensor) -> Tensor:
        """Ids (B, L, T) -> signals."""
        if hasattr(self.model.config, "target_bandwidths"):
            return self.model.decode(ids[None], [None]).audio_values
        y = self.model.decode(audio_codes=ids).audio_values
        return y if y.dim() == 3 else y[:, None]


class Pictures:
    """How JanusVQVAE and VQModel are called. The side of their pictures is in the configuration."""

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config
        self.janus = hasattr(config, "num_patches")
        self.stride = 2 ** (len(config.channel_multiplier if self.janus else config.block_out_channels) - 1)
        self.side = config.num_patches * self.stride if self.janus else config.sample_size

    def input(self, generator: torch.Generator) -> Tensor:
        """A picture of blots and noise."""
        blots = F.interpolate(torch.randn(1, 3, 12, 12, generator=generator), size=self.side, mode="bicubic")
        return (0.4 * blots + 0.1 * torch.randn(blots.shape, generator=generator)).clamp(-1, 1)

    def latents(self, x: Tensor) -> Tensor:
        """Pictures -> what is quantized, (B, T, D)."""
        return self.model.quant_conv(self.model.encoder(x)).flatten(2).mT

    def encode(self, x: Tensor) -> Tensor:
        """Pictures -> ids (B, 1, T)."""
        ids = self.model.encode(x).image_tokens if self.janus else self.model.quantize(self.model.encode(x)[0])[2][2]
        return ids.view(len(x), 1, -1)

    def decode(self, ids: Tensor) -> Tensor:
        """Ids (B, 1, T) -> pictures."""
        if self.janus:
            return self.model.decode(ids[:, 0])
        across = self.side // self.stride
        return self.model.decode(ids.flatten(), force_not_quantize=True, shape=(len(ids), across, across, -1)).sample


class Taming(Pictures):
    """A `VQModel` of taming: `JanusVQVAE` has its network. What it does with the codes is written out here."""

    def encode(self, x: Tensor) -> Tensor:
        return torch.cdist(self.latents(x), self.model.quantize.embedding.weight).argmin(-1)[:, None]

    def decode(self, ids: Tensor) -> Tensor:
        values = self.model.quantize.embedding(ids[:, 0]).mT
        across = self.side // self.stride
        return self.model.decoder(self.model.post_quant_conv(values.unflatten(2, (across, across))))


class Published(NamedTuple):
    """A model as it was published."""

    title: str
    form: str
    """Of `mmtok.export.formats`."""
    calls: type[Sounds] | type[Pictures]
    library: str
    fields: dict[str, Any]
    """Of its configuration, beside the defaults."""
    ways: tuple[Way, ...] = ("to", "from")
    """`to`: drawn here and exported; `from`: drawn there and imported."""


PUBLISHED = {
    "encodec_24k": Published("EncodecModel, 24 kHz", "hf-encodec", Sounds, "Encodec", {}),
    "dac_16k": Published("DacModel, 16 kHz", "hf-dac", Sounds, "Dac",
                         {"downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 12}),
    "mimi": Published("MimiModel, 24 kHz", "hf-mimi", Sounds, "Mimi", {}, ("from",)),
    "janus": Published("JanusVQVAE, 384 px", "hf-janus-vq", Pictures, "JanusVQVAE", {"num_patches": 24}),
    "ldm_f4": Published("VQModel, 256 px f4", "diffusers-vq", Pictures, "VQModel",
                        {"block_out_channels": [128, 256, 512], "down_block_types": ["DownEncoderBlock2D"] * 3,
                         "up_block_types": ["UpDecoderBlock2D"] * 3, "layers_per_block": 2, "latent_channels": 3,
                         "num_vq_embeddings": 8192, "sample_size": 256, "lookup_from_codebook": True}),
    "taming_f16": Published("taming VQModel, 256 px f16", "taming", Taming, "JanusVQVAE",
                            {"num_patches": 16, "embed_dim": 256, "num_embeddings": 1024}, ("from",)),
}  # fmt: skip


class Pair(NamedTuple):
    """The same weights twice."""

    ours: Tokenizer
    theirs: Sounds | Pictures

    def encode(self, x: Tensor) -> Tensor:
        """Signals -> ids (B, L, T) of their model."""
        return self.theirs.encode(x)

    def decode(self, ids: Tensor) -> Tensor:
        """Ids (B, L, T) -> signals of their model."""
        return self.theirs.decode(ids)


def copied(name: str, way: Way = "to") -> Pair:
    """A tokenizer with random weights and the model that has the same.

    Args:
        name: of `PUBLISHED`.
        way: weights are drawn here and brought `to` the model, or drawn there and come `from` it.
    """
    published = PUBLISHED[name]
    cls, config = _class(published.library)
    torch.manual_seed(1)
    model = cls(**published.fields) if config is None else cls(config(**published.fields))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        if "to" in published.ways:
            # Also on the way from there: what is drawn here is at levels at which digits are left.
            fields = model.config if config is None else model.config.to_dict()
            blocks = FORMATS[published.form].config_of({"_class_name": "VQModel"} | dict(fields))
            write_native(scattered(build(blocks, seed=0)), folder, published.form)
            model = cls.from_pretrained(folder)
        model = model.eval().requires_grad_(False)
        if way == "to":
            return Pair(read_model(folder, published.form), published.calls(model))
        torch.manual_seed(2)
        _shake(model, known="to" in published.ways)
        if published.form == "taming":
            _save_taming(model, folder)
        else:
            model.save_pretrained(folder)
        return Pair(read_model(folder, published.form), published.calls(model))


def _class(library: str) -> tuple[Any, Any]:
    """A class by what its library calls it, and that of its configuration; of diffusers there is none."""
    if library == "VQModel":
        import diffusers

        return diffusers.VQModel, None
    import transformers
    from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

    if library == "JanusVQVAE":
        return JanusVQVAE, JanusVQVAEConfig
    return getattr(transformers, f"{library}Model"), getattr(transformers, f"{library}Config")


def _shake(model: nn.Module, known: bool) -> None:
    """Draw weights in the model's own form: what they started from must not be what comes back.

    Args:
        model: whose weights are at the right level already, if `known`.
        known: otherwise they are as the library draws them.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("embed_sum", "quantize.embedding.weight")) and not known:
            tensor.copy_(0.3 * torch.randn_like(tensor))
        elif isinstance(tensor, nn.Parameter) or name.endswith(".embed"):
            tensor.mul_(1 + 0.1 * torch.randn_like(tensor))
            if not known and "layer_scale" not in name and tensor.dim() == 3:
                tensor.mul_(0.7)  # so that the level stays that of sounds, from layer to layer
            if not known and tensor.dim() == 1 and name.endswith("bias"):
                tensor.add_(0.02 * torch.randn_like(tensor))
    if known and type(model).__name__ == "JanusVQVAE":
        codes = model.quantize.embedding.weight  # type: ignore[union-attr]
        codes.copy_(F.normalize(codes, dim=-1))  # type: ignore[operator, arg-type]


def _save_taming(model: Any, folder: Path) -> None:
    """A run of taming with the weights of a `JanusVQVAE`, whose levels are counted from the other end."""
    import yaml

    config = model.config
    state = {}
    for name, value in model.state_dict().items():
        part = name.split(".")
        if name.startswith("decoder.up."):
            part[2] = str(len(config.channel_multiplier) - 1 - int(part[2]))
        state[".".join(part)] = value
    side = config.num_patches * 2 ** (len(config.channel_multiplier) - 1)
    network = {
        "double_z": False, "z_channels": config.latent_channels, "resolution": side, "in_channels": 3, "out_ch": 3,
        "ch": config.base_channels, "ch_mult": list(config.channel_multiplier),
        "num_res_blocks": config.num_res_blocks, "attn_resolutions": [config.num_patches], "dropout": 0.0,
    }  # fmt: skip
    params = {"embed_dim": config.embed_dim, "n_embed": config.num_embeddings, "ddconfig": network}
    folder.mkdir()
    recipe = {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}
    (folder / "model.yaml").write_text(yaml.safe_dump(recipe))
    torch.save({"state_dict": state, "epoch": 1}, folder / "last.ckpt")


def build(blocks: dict[str, Any], seed: int) -> Tokenizer:
    """A tokenizer with the weights of a seed, for use."""
    torch.manual_seed(seed)
    return build_tokenizer(**blocks).eval().requires_grad_(False)


def scattered(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with what begins as zeros or ones drawn too, and codebooks as wide as what each level codes.

    New biases and frequencies are all alike, which would hide what is exchanged; and codes of one width for all levels
    would leave the later ones of a random codec nothing but ties.
    """
    snakes = [part for part in tokenizer.networks.modules() if isinstance(part, Snake)]
    for snake in snakes:
        snake.alpha.uniform_(0.5, 2)
    for part in tokenizer.networks.modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d | nn.Conv2d) and part.bias is not None:
            part.bias.normal_(std=0.02)
            if snakes:
                # What snake adds would grow from layer to layer to levels of which a sine keeps no digits.
                part.weight = 0.6 * part.weight
        elif isinstance(part, nn.GroupNorm):
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(std=0.1)
    if not isinstance(tokenizer, AudioTokenizer):
        tokenizer.networks.last_layer.mul_(0.3)  # so that pictures are about in [-1, 1]
    stride = tokenizer.networks.downsample
    sound = isinstance(tokenizer, AudioTokenizer)
    shape = (tokenizer.config.channels, 40 * stride) if sound else (3, 8 * stride, 8 * stride)  # type: ignore[attr-defined]
    residual = tokenizer.embed((0.3 * torch.randn(1, *shape)).clamp(-1, 1)).z
    for part in levels_of(tokenizer.quantizer):
        projected = part.project_in(residual)
        # Half as wide as the residual, so that adding a code makes it smaller, also where codes are drawn.
        codes = 0.5 * projected.std() * torch.randn_like(part.codebook)
        part.codebook.copy_(F.normalize(codes, dim=-1) if part.config.l2 else codes)
        part.usage.uniform_()
        residual = residual - part(residual).values
    return tokenizer


def decisive(quantizer: Quantizer, z: Tensor) -> Tensor:
    """(B, L, T) whether the best code of latents z (B, T, D) is the best by `MARGIN`, at all levels so far."""
    if isinstance(quantizer, Split):
        parts = [part for part in quantizer.parts if isinstance(part, Quantizer)]
        return torch.cat([decisive(part, quantizer.project_in[i](z)) for i, part in enumerate(parts)], 1)
    residual, clear = z, []
    for part in levels_of(quantizer):
        clear.append(part.margins(residual) > MARGIN)
        residual = residual - part(residual).values
    return torch.stack(clear, 1).long().cumprod(1).bool()


def levels_of(quantizer: Quantizer) -> list[VQ]:
    """The quantizers of `vq` or `rq`, level by level."""
    return [part for part in quantizer.modules() if isinstance(part, VQ)]
