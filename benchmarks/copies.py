"""Published codecs of transformers at their size with random weights, and tokenizers here with the same weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.export import hf_dac, hf_encodec
from mmtok.networks.blocks1d import Snake
from mmtok.quantizers.vq import VQ
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.audio import AudioTokenizer

MARGIN = 1e-4
"""By which the best code must be nearer than the second, in squared distance, for ids to be compared (design)."""
Way = Literal["to", "from"]


class Published(NamedTuple):
    """A codec as it was published."""

    kind: str
    """Name of its classes in transformers, without Model and Config."""
    maps: ModuleType
    """What translates its configuration and weights."""
    fields: dict[str, Any]
    """Of its configuration, beside the defaults."""


PUBLISHED = {
    "encodec_24k": Published("Encodec", hf_encodec, {}),
    "dac_16k": Published("Dac", hf_dac, {"downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 12}),
}


class Pair(NamedTuple):
    """The same weights twice."""

    ours: AudioTokenizer
    theirs: Any

    def latents(self, x: Tensor) -> Tensor:
        """(B, 1, S) -> (B, D, T) of their encoder."""
        return self.theirs.encoder(x)

    def encode(self, x: Tensor) -> Tensor:
        """Sounds (B, 1, S) -> their ids (B, L, T), all levels."""
        if hasattr(self.theirs.config, "target_bandwidths"):
            return self.theirs.encode(x, bandwidth=self.theirs.config.target_bandwidths[-1]).audio_codes[0]
        return self.theirs.encode(x).audio_codes

    def decode(self, ids: Tensor) -> Tensor:
        """Ids (B, L, T) -> their sounds (B, 1, S)."""
        if hasattr(self.theirs.config, "target_bandwidths"):
            return self.theirs.decode(ids[None], [None]).audio_values
        return self.theirs.decode(audio_codes=ids).audio_values[:, None]


def copied(name: str, way: Way = "to") -> Pair:
    """A tokenizer with random weights and the model of transformers that has the same.

    Args:
        name: of `PUBLISHED`.
        way: weights are drawn here and brought `to` the model, or drawn there and come `from` it.
    """
    import transformers

    published = PUBLISHED[name]
    settings = getattr(transformers, f"{published.kind}Config")(**published.fields)
    theirs = getattr(transformers, f"{published.kind}Model")(settings).eval().requires_grad_(False)
    blocks = published.maps.config_of(theirs.config.to_dict())
    ours = scattered(build(blocks, seed=0))
    theirs.load_state_dict(published.maps.state_to(ours.state_dict(), ours))
    if way == "from":
        # Drawn in their form: what they started from must not be what comes back.
        torch.manual_seed(2)
        for tensor in (*theirs.parameters(), *(b for key, b in theirs.named_buffers() if key.endswith("embed"))):
            tensor.mul_(1 + 0.1 * torch.randn_like(tensor))
        ours = build(blocks, seed=1)
        state = published.maps.state_from(theirs.state_dict(), ours)
        missing, unexpected = ours.load_state_dict(state, strict=False)
        assert not unexpected
        assert {key.split(".")[-1] for key in missing} <= {"probe", "usage"}
    return Pair(ours, theirs)


def build(blocks: dict[str, Any], seed: int) -> AudioTokenizer:
    """An audio tokenizer with the weights of a seed, for use."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(**blocks)
    assert isinstance(tokenizer, AudioTokenizer)
    return tokenizer.eval().requires_grad_(False)


def scattered(tokenizer: AudioTokenizer) -> AudioTokenizer:
    """The tokenizer with what begins as zeros or ones drawn too, and codebooks as wide as what each level codes.

    New biases and frequencies are all alike, which would hide what is exchanged; and codes of one width for all levels
    would leave the later ones of a random codec nothing but ties.
    """
    snakes = [part for part in tokenizer.networks.modules() if isinstance(part, Snake)]
    for snake in snakes:
        snake.alpha.uniform_(0.5, 2)
    for part in tokenizer.networks.modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d) and part.bias is not None:
            part.bias.normal_(std=0.02)
            if snakes:
                # What snake adds would grow from layer to layer to levels of which a sine keeps no digits.
                part.weight = 0.6 * part.weight
    noise = 0.3 * torch.randn(1, tokenizer.config.channels, 40 * tokenizer.networks.downsample)
    residual = tokenizer.networks.encoder(noise).mT
    for part in _levels(tokenizer):
        projected = part.project_in(residual)
        # Half as wide as the residual, so that adding a code makes it smaller, also where codes are drawn.
        part.codebook.copy_(0.5 * projected.std() * torch.randn_like(part.codebook))
        part.usage.uniform_()
        residual = residual - part(residual).values
    return tokenizer


def decisive(tokenizer: AudioTokenizer, z: Tensor) -> Tensor:
    """(B, L, T) whether the best code of latents z (B, T, D) is the best by `MARGIN`, at all levels so far."""
    residual, clear = z, []
    for part in _levels(tokenizer):
        x, codes = part.project_in(residual), part.codebook
        if part.config.cosine or part.config.l2:
            x, codes = F.normalize(x, dim=-1), F.normalize(codes, dim=-1)
        best = torch.cdist(x, codes).square().topk(2, largest=False).values
        clear.append(best[..., 1] - best[..., 0] > MARGIN)
        residual = residual - part(residual).values
    return torch.stack(clear, 1).long().cumprod(1).bool()


def _levels(tokenizer: AudioTokenizer) -> list[VQ]:
    """The quantizers of a tokenizer with `rq`, level by level."""
    return [part for part in tokenizer.quantizer.modules() if isinstance(part, VQ)]
