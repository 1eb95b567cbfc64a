"""What a measure is given: a tokenizer, its recipe's data, and what was encoded already."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmtok.compare.tokens import Tokens, read_tokens
from mmtok.config import RunConfig
from mmtok.evaluation.heldout import HeldOut, Signals
from mmtok.loading import load
from mmtok.schema import ConfigError
from mmtok.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from mmtok.compare.cells import Cell

EXAMPLES = 8
"""Items kept to look at and to listen to."""


@dataclass(frozen=True)
class Subject:
    """A trained tokenizer and its data."""

    tokenizer: Tokenizer
    cell: Cell
    config: RunConfig
    folder: Path
    _tokens: dict[Any, Tokens] = field(default_factory=dict)

    @classmethod
    def of(cls, cell: Cell, config: RunConfig, folder: Path) -> Subject:
        """The tokenizer that a cell trained or names.

        Raises:
            ConfigError: it is for another kind of signal than the recipe's.
        """
        from mmtok.compare.adapters import adapted

        path = cell.arm.path
        tokenizer = adapted(path) if ":" in path else load(path or folder)
        spec = tokenizer.spec
        if config.data.gives not in ("", spec.modality):
            raise ConfigError(
                f"{cell.arm.name} is for {spec.modality}, and the recipe's data give {config.data.gives}."
            )
        rate = getattr(config.data, "sample_rate", None)
        if spec.sample_rate != rate:
            raise ConfigError(
                f"{cell.arm.name} is for {spec.modality} at {spec.sample_rate} Hz, the recipe for {rate} Hz."
            )
        return cls(tokenizer, cell, config, folder)

    @cached_property
    def device(self) -> torch.device:
        """Where the measures compute."""
        return torch.device("cuda" if torch.cuda.is_available() and self.config.trainer.accelerator != "cpu" else "cpu")

    def held_out(self, samples: int | None = None) -> HeldOut:
        """The recipe's validation set."""
        return HeldOut(self.config.data, samples=samples, examples=EXAMPLES)

    def training(self, samples: int) -> HeldOut:
        """The training set, prepared as for validation: whole or cut in the middle, in order."""
        shards = self.config.data.shards
        sets = shards if isinstance(shards, str) else tuple(one.path for one in shards)
        return HeldOut(dataclasses.replace(self.config.data, val_shards=sets), samples=samples)

    def tokens(self, training: bool, samples: int) -> Tokens:
        """Codes of one of the sets, encoded once."""
        if (training, samples) not in self._tokens:
            source = self.training(samples) if training else self.held_out(samples)
            self._tokens[training, samples] = read_tokens(self.tokenizer, Signals(source), samples, self.device)
        return self._tokens[training, samples]

    @property
    def latent(self) -> bool:
        """Whether there are latents and values between the networks; of an adapter there are ids alone."""
        from mmtok.compare.adapters import Adapted

        return not isinstance(self.tokenizer, Adapted)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know of the tokenizer."""
        from mmtok.compare.adapters import Adapted

        return tuple(self.tokenizer.notes) if isinstance(self.tokenizer, Adapted) else ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the codebooks."""
        return self.tokenizer.spec.codebook_sizes
