"""The training module: one generator step, counted, guarded and averaged; validation on the averaged weights.

Manual optimisation always, so that an adversary can join without changing what a step is. `trainer.global_step` counts
updates of the generator, whatever the accumulation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from datamodules.stream import only_valid
from mmtok.config import RunConfig
from mmtok.losses.base import losses
from mmtok.schema import to_plain
from mmtok.tokenizers.base import Reconstruction, Tokenizer, build_tokenizer
from mmtok.training.draws import draw_levels, draw_seed
from mmtok.training.logs import ScalarBuffer
from mmtok.training.optim import build_optimizer, gradient_norm, learning_rate, set_learning_rate, update_average


class NonFiniteError(RuntimeError):
    """The loss or its gradient became NaN or infinite. Nothing was changed by the step that found it."""


class TokenizerModule(L.LightningModule):
    """Trains a tokenizer to give back what it was given.

    Attributes:
        tokenizer: what is trained.
        ema: the average of its weights, or None (`optim.ema=0`).
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.tokenizer: Tokenizer = build_tokenizer(config.tokenizer, config.quantizer)
        self.terms = nn.ModuleDict({name: losses.build(term) for name, term in config.loss.items() if term})
        self.ema: Tokenizer | None = None
        if config.optim.ema > 0:
            self.ema = copy.deepcopy(self.tokenizer).requires_grad_(False)
        self.scalars = ScalarBuffer()
        self._micro = 0
        self._stats: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> Tokenizer:
        """The weights a user gets: the average where there is one."""
        return self.tokenizer if self.ema is None else self.ema

    def compile_networks(self) -> None:
        """Compile encoder and decoder in place: names in the state stay, and the step itself stays eager."""
        for network in (self.tokenizer.networks.encoder, self.tokenizer.networks.decoder):
            network.compile(dynamic=False)

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer(self.config.optim, [self.tokenizer, self.terms])

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """One batch; on the last of an accumulation, one update."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, L.pytorch.core.optimizer.LightningOptimizer)
        accumulate = self.config.trainer.accumulate
        last = self._micro == accumulate - 1
        with self._gradient_sync(last):
            out = self._forward(batch)
            terms = self._objective(out, batch)
            loss = torch.stack(list(terms.values())).sum()
            # A loss that is inf or NaN turns every gradient into NaN, and DDP's average carries that to all ranks, so
            # one look at the norm decides for the whole world without a collective of its own.
            self.manual_backward(loss * (1 + 0 * loss.detach()) / accumulate)
        self._stats = self.tokenizer.quantizer.merge(self._stats, out.quantized.stats)
        self.log_scalars({"loss": loss, **{f"loss/{name}": term for name, term in terms.items()}})
        self._micro += 1
        if last:
            self._update(optimizer, batch)
        return {
            "loss": loss.detach(),
            "terms": {name: term.detach() for name, term in terms.items()},
            "quantized": detach(out.quantized),
            "x": batch["x"],
            "reconstruction": out.x.detach(),
        }

    def _forward(self, batch: Mapping[str, Any]) -> Reconstruction:
        """One pass, with the draws of this rank's slots of the global batch."""
        step, x = self.trainer.global_step, batch["x"]
        per_rank = x.shape[0]
        first = self._micro * per_rank
        levels = draw_levels(
            self.tokenizer.quantizer, self.config.seed, step, self.config.data.batch_size,
            rank=self.trainer.global_rank, world=self.trainer.world_size, part=slice(first, first + per_rank),
        )  # fmt: skip
        seed = draw_seed(self.config.seed, step, self._micro, self.trainer.global_rank)
        # Dropout draws from torch's own generator, which no checkpoint holds and every rank would start alike.
        torch.manual_seed(seed)
        return self.tokenizer(
            x, batch.get("lengths"), levels=None if levels is None else levels.to(x.device), seed=seed
        )

    def _objective(self, out: Reconstruction, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Weighted terms, in float32 whatever the networks run in."""
        with torch.autocast(self.device.type, enabled=False):
            reconstruction, x = out.x.float(), batch["x"].float()
            weights = {name: term.weight for name, term in self.config.loss.items() if term}
            terms = {name: weights[name] * term(reconstruction, x) for name, term in self.terms.items()}
        return terms | out.quantized.losses

    def _update(self, optimizer: L.pytorch.core.optimizer.LightningOptimizer, batch: Mapping[str, Any]) -> None:
        """Check, then change: weights, quantizer state, average; in this order."""
        step, optim = self.trainer.global_step, self.config.optim
        norm = gradient_norm(self.tokenizer.parameters(), optim.clip)
        if not torch.isfinite(norm):
            self._refuse(batch)
        lr = learning_rate(optim, step, self.config.trainer.max_steps)
        set_learning_rate(optimizer.optimizer, lr)
        optimizer.step()
        optimizer.zero_grad()
        self.tokenizer.quantizer.update(self._stats)
        if self.ema is not None:
            update_average(self.ema, self.tokenizer, optim.ema, step)
        self._micro, self._stats = 0, {}
        self.log_scalars({"optim/lr": lr, "optim/gradient_norm": norm})

    def _refuse(self, batch: Mapping[str, Any]) -> None:
        keys = list(batch.get("key", ()))
        named = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        clip = "" if self.config.optim.clip else "set optim.clip=1, "
        raise NonFiniteError(
            f"the loss or its gradient is not finite at step {self.trainer.global_step} (rank {self.global_rank}, "
            f"samples {named or 'unnamed'}). Nothing was changed by it, and what was saved before stands. "
            f"Lower optim.lr, {clip}or train with trainer.precision=32."
        )

    def _gradient_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients travel once an update, with the last accumulated batch."""
        model = self.trainer.strategy.model
        return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Reconstruct with the weights a user would get, with and without the quantizer."""
        batch = only_valid(batch)
        tokenizer, x = self.evaluated, batch["x"]
        out = tokenizer(x, batch.get("lengths"))
        bypass = tokenizer.bypass(out.latents, tuple(x.shape[2:]))
        terms = self._objective(out, batch)
        return {
            "loss": torch.stack(list(terms.values())).sum(),
            "terms": terms,
            "quantized": out.quantized,
            "x": x,
            "reconstruction": out.x,
            "bypass": bypass,
        }

    def log_scalars(self, values: Mapping[str, Tensor | float]) -> None:
        """Add to the current window of the log; nothing is read from the device until the window ends."""
        self.scalars.add(values)

    def on_train_start(self) -> None:
        self._micro, self._stats = 0, {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        from mmtok import __version__

        checkpoint["mmtok"] = {"version": __version__, "config": to_plain(self.config)}


def detach(quantized: Any) -> Any:
    """The same result without its graph, for callbacks that outlive the step."""
    return quantized._replace(
        values=quantized.values.detach(), losses={name: term.detach() for name, term in quantized.losses.items()}
    )
