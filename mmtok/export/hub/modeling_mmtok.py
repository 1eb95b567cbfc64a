"""A tokenizer for transformers: `AutoModel.from_pretrained(BUNDLE, trust_remote_code=True)`, where mmtok is absent.

```python
tok = AutoModel.from_pretrained(BUNDLE, trust_remote_code=True)
codes = tok.encode(tok.preprocess("picture.png"))      # codes.ids (B, L, T) int64, 0 .. size - 1 of each level
ids = tok.to_ids(codes, vocab=VOCABULARY)              # what a language model reads
x = tok.decode(tok.from_ids(ids, vocab=VOCABULARY, grid=codes.grid))
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmtok.codes import Codes, CodeSpec
from mmtok.export.hub.configuration_mmtok import MmtokConfig
from mmtok.export.hub.mmtok_parts import build_exported
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab_map import Vocabulary
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.predictor import attach


class MmtokModel(PreTrainedModel):
    """Signals to codes and back.

    Attributes:
        tokenizer: which computes; its parts are registered here too, under the names that the weights have.
    """

    tokenizer: Tokenizer
    config_class = MmtokConfig
    main_input_name = "x"
    # Codes would change with the precision of the model around it. (For speed there is torch.autocast.)
    _keep_in_fp32_modules_strict = {"networks", "quantizer", "standard"}  # noqa: RUF012, as transformers has it

    def __init__(self, config: MmtokConfig) -> None:
        super().__init__(config)
        tokenizer = build_exported(config.to_dict()).requires_grad_(False)
        # Not as a submodule: the names of all weights would begin with it.
        object.__setattr__(self, "tokenizer", tokenizer)
        for name, part in tokenizer.named_children():
            self.add_module(name, part)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: all weights are in the bundle."""

    @property
    def spec(self) -> CodeSpec:
        """What the ids mean."""
        return self.tokenizer.spec

    @property
    def token_spec(self) -> TokenSpec:
        """How a language model sees them."""
        return TokenSpec.parse(self.config.token_spec, "config.json")

    def preprocess(self, source: Any, **choices: Any) -> Tensor:
        """A path, bytes, picture or array -> x (1, C, ...) in [-1, 1], as the tokenizer wants it."""
        return self.tokenizer.preprocess(source, **choices).to(self.device)

    def encode(self, x: Tensor, lengths: Tensor | None = None, *, budget: int | str | None = None) -> Codes:
        """x (B, C, H, W) or (B, C, S) in [-1, 1] -> codes, whose `ids` are (B, L, T).

        Args:
            x: signals.
            lengths: (B,) samples of each sound of a padded batch.
            budget: how much of a code to keep, where it can be cut: a number of levels, or "tokens=64", "bits=1000",
                "psnr=30" (pictures) or "snr=12", of each item for itself.
        """
        self._check_precision()
        if self.tokenizer.length_predictor is None and self.config.name_or_path:
            attach(self.tokenizer, Path(self.config.name_or_path))
        return self.tokenizer.encode(x.float() if x.is_floating_point() else x, lengths, budget=budget)

    def decode(self, codes: Codes) -> Tensor:
        """Codes -> signals, cut to the size of their sources."""
        self._check_precision()
        return self.tokenizer.decode(codes)

    def _check_precision(self) -> None:
        if self.dtype is not torch.float32:
            raise ValueError(
                f"the weights of this tokenizer were turned into {self.dtype}, in which its codes are others. Leave "
                "them in float32, and use torch.autocast for speed."
            )

    def to_ids(self, codes: Codes, vocab: str | Path | Vocabulary) -> list[Tensor]:
        """Codes -> the ids of each item in a vocabulary, specials included: (N,), or (L, N) in parallel layouts.

        Args:
            codes: of this tokenizer.
            vocab: the folder that `mmtok vocab merge` wrote, or what was read of it.
        """
        return _vocabulary(vocab).to_ids(codes, self.token_spec)

    def from_ids(
        self,
        ids: Tensor | Sequence[Tensor | Sequence[int]],
        vocab: str | Path | Vocabulary,
        grid: tuple[int, int] | None = None,
    ) -> Codes:
        """The ids of one item, or of several -> codes; `grid` (H, W) of pictures whose ids do not tell it."""
        spec = self.token_spec
        if isinstance(ids, Tensor) and ids.ndim == (2 if spec.layout.kind == "parallel" else 1):
            ids = [ids]
        return _vocabulary(vocab).from_ids(list(ids), spec, grid)

    def prefix_allowed_tokens_fn(self, vocab: str | Path | Vocabulary, **limits: Any) -> Any:
        """For `generate(prefix_allowed_tokens_fn=...)`: text and whole items of this tokenizer, nothing else.

        Args:
            vocab: as for `to_ids`.
            **limits: `grid`, `levels`, `positions` of items that are begun.
        """
        return _vocabulary(vocab).prefix_allowed_tokens_fn(self.token_spec, **limits)

    def logits_processor(self, vocab: str | Path | Vocabulary, **limits: Any) -> Any:
        """The same as `prefix_allowed_tokens_fn`, faster, for `generate(logits_processor=[...])`."""
        return _vocabulary(vocab).logits_processor(self.token_spec, **limits)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Signals as their codes give them back."""
        return self.decode(self.encode(x, lengths))


def _vocabulary(vocab: str | Path | Vocabulary) -> Vocabulary:
    if isinstance(vocab, str | Path):
        return Vocabulary.read(vocab)
    # By what it can do: one that was read by mmtok, or by another bundle, is of another class and as good.
    if all(hasattr(vocab, name) for name in ("find", "to_ids", "from_ids", "grammar")):
        return vocab
    raise ValueError(
        f"vocab is a {type(vocab).__name__}. Give the folder that mmtok vocab merge wrote, or Vocabulary.read(FOLDER)."
    )
