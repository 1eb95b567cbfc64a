"""Tokenizers that are fitted to data in one pass, without gradients: text by counting, vectors by clustering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from mmtok.tokenizers.base import Tokenizer, TokenizerConfig


@dataclass(frozen=True, kw_only=True)
class FittedConfig(TokenizerConfig):
    """A tokenizer whose recipe has no loss, no optimiser and no quantizer to train."""

    REQUIRES: ClassVar[tuple[str, ...]] = ()
    """Packages beyond numpy, torch and safetensors."""


class FittedTokenizer(Tokenizer):
    """x -> Codes -> x, once `fit` has seen data. All that was learned is in buffers, whose sizes the data decide."""

    config: FittedConfig

    def fit(self, sample: Any) -> dict[str, float]:
        """Learn from a sample of the training set; returns figures worth a line of the log.

        Raises:
            ValueError: nothing can be learned from it.
        """
        raise NotImplementedError

    @property
    def learns(self) -> bool:
        """Whether `fit` looks at its sample at all."""
        return True

    @property
    def learns_of(self) -> str:
        """What data must give it (`DataConfig.gives`)."""
        return self.spec.modality

    @property
    def fitted(self) -> bool:
        """Whether there is something to encode with."""
        raise NotImplementedError

    def require_fitted(self) -> None:
        """Refuse to work before `fit`.

        Raises:
            ValueError: it was not fitted.
        """
        if not self.fitted:
            raise ValueError("this tokenizer was not fitted yet. Use tokenizer.fit(sample), or mmtok train.")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # A fitted buffer has the size its data gave it, and torch refuses sizes other than those it was built with.
        for name, value in self._buffers.items():
            loaded = state_dict.get(prefix + name)
            if isinstance(loaded, Tensor) and value is not None and loaded.shape != value.shape:
                setattr(self, name, value.new_empty(loaded.shape, device=value.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.loaded()

    def loaded(self) -> None:
        """Called when buffers were read: forget what was made of the old ones."""
