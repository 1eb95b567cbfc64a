"""What every trained tokenizer is: preprocessing, network and quantizer in one object, for training and for use."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mmtok.codes import Codes, CodeSpec
from mmtok.networks.base import Networks
from mmtok.networks.optimize import optimize
from mmtok.quantizers.base import Quantizer, QuantizerConfig, quantizers
from mmtok.registry import Registry
from mmtok.tokenizers.axis import Axis
from mmtok.tokenizers.budget import Budget, budget_of
from mmtok.tokenizers.checks import check_lengths, refuse_ids
from mmtok.tokenizers.latents import Latents, Reconstruction
from mmtok.tokenizers.predictor import LengthPredictor


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Fields every tokenizer has."""

    dim: int = 64
    """Channels of the latents between network and quantizer. Filled into `quantizer.dim`."""


class Tokenizer(nn.Module):
    """x -> Codes -> x. Subclasses write `embed` and `synthesise`, and `spec`.

    Built from its own config and a quantizer's: `Tokenizer(config, quantizer)`.
    """

    config: TokenizerConfig
    networks: Networks
    quantizer: Quantizer

    gives: Literal["signals", "logits"] = "signals"
    """What a pass gives of x: the same signal again, or logits of each of its values."""
    suffix: str
    """Of the files `write` makes: ".png"."""
    length_predictor: LengthPredictor | None = None
    """What tells the quality of items at each length without decoding, where one was fitted."""
    _origin: str = ""
    """Fingerprint of what an optimized copy was made of; its own weights are the same in another form."""

    @property
    def spec(self) -> CodeSpec:
        """What the ids mean."""
        raise NotImplementedError

    def write(self, x: Tensor, path: Path) -> None:
        """Write one signal (1, C, ...) as a file people can open."""
        raise NotImplementedError

    def optimize(self, *, compile: bool = False) -> Self:
        """A copy for inference on this device: the same codes and signals to rounding, faster, without gradients.

        Weight norms are folded, and weights laid out for the device. It reads and writes the codes of its original.

        Args:
            compile: compile the networks too, in the first calls: it takes a minute and a C++ compiler.
        """
        ready = optimize(self)
        ready._origin = self.fingerprint()
        if compile:
            ready.networks.encoder.compile()
            ready.networks.decoder.compile()
        return ready

    def fingerprint(self) -> str:
        """Sixteen hex digits of all weights: codes written by one tokenizer mean nothing to another."""
        if self._origin:
            return self._origin
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            # Flat first: a tensor laid out channels-last may count as contiguous and still not be viewed as bytes.
            flat = value.detach().cpu().reshape(-1).contiguous()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, str]:
        """What a person wants to know before a training starts, by name: rates, levels, parameters."""
        return {}

    def preprocess(self, source: Any) -> Tensor:
        """A file, bytes, picture or array -> x with a batch of one."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Refuse an x of the wrong shape, type or range. `encode` calls it; a training step does not wait for it.

        Raises:
            ValueError: names what is wrong with x.
        """

    def check_codes(self, codes: Codes) -> None:
        """Refuse codes that do not fit this kind of tokenizer; ids and levels are the quantizer's to check.

        Raises:
            ValueError: names what does not fit.
        """

    @property
    def wants_sample(self) -> bool:
        """Whether it must see the training set before the first update, by `measure`; never again after that."""
        return False

    def measure(self, sample: Iterable[Tensor]) -> None:
        """Learn what preprocessing needs of the training set, in batches of x. A collective: every rank calls it."""

    def compared(self, x: Tensor) -> Tensor:
        """x, or a reconstruction of it -> the form in which the objective and validation compare the two."""
        return x

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        """Pad x to the stride and encode it; no quantization yet."""
        raise NotImplementedError

    def synthesise(
        self,
        values: Tensor,
        grid: tuple[int, int] | None,
        size: tuple[int, ...],
        *,
        mask: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Tensor:
        """Values (B, T, D) -> signals (B, C, *size), or logits; `mask` (B, T) and `gain` (B,) as in `Latents`."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        levels: Tensor | None = None,
        positions: Tensor | None = None,
        digits: Tensor | None = None,
        seed: Tensor | int | None = None,
    ) -> Reconstruction:
        """One pass of training or validation.

        Args:
            x: signals as the modality has them (design: contract of x).
            lengths: (B,) valid samples of each item, where padded.
            levels: (B,) quantizer levels to keep of each item.
            positions: (B,) first positions to keep of each item, where they come in an order (`draw_positions`).
            digits: (B,) leading digits to keep of each item's codes, of quantizers whose codes have some.
            seed: for quantizers that add noise.
        """
        size = tuple(x.shape[2:])
        return self.reconstruct(
            self.embed(x, lengths), size, levels=levels, positions=positions, digits=digits, seed=seed
        )

    def reconstruct(
        self,
        latents: Latents,
        size: tuple[int, ...],
        *,
        levels: Tensor | None = None,
        positions: Tensor | None = None,
        digits: Tensor | None = None,
        seed: Tensor | int | None = None,
    ) -> Reconstruction:
        """What follows the encoder in a pass; `size` is that of the signals, the rest as in `forward`."""
        latents = latents.first(positions)
        hints = {"grid": latents.grid, "levels": levels, "digits": digits, "seed": seed}
        quantized = self.quantizer(latents.z, latents.mask, **hints)
        y = self.synthesise(quantized.values, latents.grid, size, mask=latents.mask, gain=latents.gain)
        return Reconstruction(y, quantized, latents)

    def draw_positions(self, count: int, generator: torch.Generator) -> Tensor | None:
        """First positions to keep (count,) of as many items in training, or None for all; drawn by the trainer."""
        return None

    def bypass(self, latents: Latents, size: tuple[int, ...]) -> Tensor:
        """Signals decoded from latents that were not rounded; how much better they are is the quantization gap."""
        with torch.autocast(latents.z.device.type, enabled=False):
            values = self.quantizer.relax(latents.z)
        return self.synthesise(values, latents.grid, size, mask=latents.mask, gain=latents.gain)

    @torch.inference_mode()
    def encode(self, x: Tensor, lengths: Tensor | None = None, *, budget: int | str | Budget | None = None) -> Codes:
        """Signals -> codes.

        Args:
            x: as the modality has them (design: contract of x).
            lengths: (B,) valid samples of each item, where padded.
            budget: how much of a code to keep: a number of levels, where the quantizer has several, or
                `Tokens`, `Bits` or `Quality` of `mmtok.tokenizers.budget`, as they are or in words ("tokens=16").

        Raises:
            ValueError: x is not what the modality has, or nothing can be left out.
        """
        self.check(x)
        if x.dtype == torch.float64:  # what numpy gives: networks have no use for it
            raise ValueError("x is float64, and tokenizers compute in float32. Use x.float(), or preprocess.")
        if lengths is not None:
            check_lengths(x, lengths)
        budget = budget_of(budget)
        with evaluating(self):
            if isinstance(budget, Budget):
                return budget.spend(self, x, self.embed(x, lengths))
            return self._encode(x, lengths, budget)

    def _encode(self, x: Tensor, lengths: Tensor | None, budget: int | None) -> Codes:
        return self.code(self.embed(x, lengths), levels=self.kept_levels(x.shape[0], budget))

    def code(self, latents: Latents, *, levels: Tensor | None = None, positions: Tensor | None = None) -> Codes:
        """Latents -> codes, of each item only the first `levels` (B,) or `positions` (B,)."""
        latents = latents.first(positions)
        ids = self.quantizer.encode(latents.z, latents.mask, grid=latents.grid, levels=levels)
        batch, count = latents.z.shape[:2]
        scales = self.quantizer.scales(latents.grid)
        full = torch.full((batch,), ids.shape[2] if scales else count, device=ids.device)
        lengths = full if latents.mask is None else latents.mask.sum(1)
        extras = {} if latents.gain is None else {"gain": latents.gain}
        return Codes(ids, lengths, latents.source_size, grid=latents.grid, scales=scales, extras=extras)

    @property
    def axis(self) -> Axis | None:
        """Along what a code can be cut, its end first; None where it is all or nothing."""
        return "levels" if self.quantizer.depth > 1 else None

    @property
    def cut_in_training(self) -> bool:
        """Whether training cuts codes along the axis, so that every length is of use."""
        return self.quantizer.drops

    def prefix(self, digits: int) -> Self:
        """The tokenizer of the leading digits of its codes, a smaller vocabulary, with the same networks.

        Raises:
            ValueError: codes have no digits, or not as many.
        """
        quantizer = self.quantizer.prefix(digits)
        if digits < self.quantizer.digits and not self.quantizer.drops_digits:
            warnings.warn(
                f"{digits} of {self.quantizer.digits} digits: this quantizer was trained without dropout, so leading "
                "digits alone mean little. Train it with quantizer.dropout=0.8.",
                stacklevel=2,
            )
        small = copy.copy(self)
        # A module's copy shares its table of parts.
        small._modules = dict(self._modules)
        small.quantizer = quantizer.requires_grad_(next(self.parameters()).requires_grad)
        small.length_predictor, small._origin = None, ""
        return small

    def kept_levels(self, count: int, budget: int | None) -> Tensor | None:
        """The hint `levels` (count,) that a budget means to the quantizer; None where none is given.

        Raises:
            ValueError: the quantizer has not as many levels.
        """
        if budget is None:
            return None
        depth = self.quantizer.depth
        if not 1 <= budget <= depth:
            kept = f"Use 1 to {depth}." if depth > 1 else "Only residual quantizers can leave levels out."
            if self.axis == "positions":
                kept = f"Its rows are cut by tokens: tokens={budget}."
            raise ValueError(f"budget={budget}, but this tokenizer's quantizer has a depth of {depth}. {kept}")
        return torch.full((count,), budget, device=next(self.parameters()).device)

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        """Codes -> signals, cut to the largest `source_size` of the batch."""
        refuse_ids(codes)
        self.check_codes(codes)
        with evaluating(self):
            values = self.quantizer.decode(codes.ids, grid=codes.grid)
            size = tuple(codes.source_size.amax(0).tolist())
            positions = torch.arange(codes.ids.shape[2], device=codes.lengths.device)
            mask = positions < codes.lengths[:, None]
            return self.synthesise(values, codes.grid, size, mask=mask, gain=codes.extras.get("gain"))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and the mode each submodule had before afterwards (some are frozen in it on purpose)."""
    training = [child for child in module.modules() if child.training]
    for child in training:
        child.training = False
    try:
        yield
    finally:
        for child in training:
            child.training = True


tokenizers: Registry[TokenizerConfig, Tokenizer] = Registry("tokenizer", TokenizerConfig)
register_tokenizer = tokenizers.register


def build_tokenizer(
    tokenizer: TokenizerConfig | dict[str, Any], quantizer: QuantizerConfig | dict[str, Any] | None
) -> Tokenizer:
    """The tokenizer a pair of blocks describes; `quantizer.dim` is filled in from the tokenizer.

    None is the quantizer of a tokenizer that is fitted without one.
    """
    config = tokenizers.parse(tokenizer, "tokenizer")
    if quantizer is None:
        return tokenizers.class_of(config)(config, None)
    inner = quantizers.parse(quantizer, "quantizer", dim=config.dim)
    if inner.dim != config.dim:
        raise ValueError(f"quantizer.dim={inner.dim} does not fit tokenizer.dim={config.dim}. Leave quantizer.dim out.")
    cls = tokenizers.class_of(config)
    return cls(config, quantizers.build(inner))
