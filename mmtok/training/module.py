"""The training module: one update of the generator and its adversary, counted, guarded and averaged; validation on the
averaged weights.

Manual optimisation always, so that an adversary can join without changing what a step is. `trainer.global_step` counts
updates of the generator, whatever the accumulation and however many optimisers there are.
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
from mmtok.losses.base import Loss, Outcome, losses
from mmtok.schema import to_plain
from mmtok.tokenizers.base import Tokenizer, build_tokenizer
from mmtok.tokenizers.latents import Reconstruction
from mmtok.training.adversary import Adversary, check_discriminator
from mmtok.training.balance import balanced
from mmtok.training.cuts import cuts
from mmtok.training.draws import draw_digits, draw_levels, draw_positions, draw_seed, draw_seeds
from mmtok.training.guard import FiniteGuard
from mmtok.training.logs import ScalarBuffer
from mmtok.training.memory import gather_states, own_states
from mmtok.training.objective import check_objective
from mmtok.training.optim import build_optimizer, gradient_norm, learning_rate, set_learning_rate, update_average
from mmtok.training.settings import OptimConfig


class TokenizerModule(L.LightningModule):
    """Trains a tokenizer to give back what it was given.

    Attributes:
        tokenizer: what is trained.
        ema: the average of its weights, or None (`optim.ema=0`).
        adversary: what judges its reconstructions, or None.
        guard: stops the run at a loss that is no number.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.tokenizer: Tokenizer = build_tokenizer(config.tokenizer, config.quantizer)
        check_objective(config, self.tokenizer)
        known = self.tokenizer.spec, config.tokenizer.dim, self.tokenizer.quantizer.has_first
        filled = {name: term.filled(*known) for name, term in config.loss.items() if term}
        self.terms = nn.ModuleDict({name: losses.build(term) for name, term in filled.items()})
        self._scaled = {name: term.weight for name, term in config.loss.items() if term and term.balance}
        self.ema: Tokenizer | None = None
        if config.optim.ema > 0:
            self.ema = copy.deepcopy(self.tokenizer).requires_grad_(False)
        self.adversary: Adversary | None = None
        if config.adversary is not None:
            channels = self.tokenizer.spec.channels
            if config.data.shape:
                check_discriminator(config.adversary, channels, config.data.shape)
            self.adversary = Adversary(config.adversary, channels)
        for part in config.optim.freeze:
            _part(self.tokenizer, part).requires_grad_(False)
        self.guard = FiniteGuard(_advice(config))
        self.scalars = ScalarBuffer()
        self._micro = 0
        self._stats: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> Tokenizer:
        """The weights a user gets: the average where there is one."""
        return self.tokenizer if self.ema is None else self.ema

    @property
    def _adversary_optim(self) -> OptimConfig:
        """The discriminator's own settings, else the generator's."""
        own = None if self.config.adversary is None else self.config.adversary.optim
        return own or self.config.optim

    def compile_networks(self) -> None:
        """Compile the networks in place: names in the state stay, and the step itself stays eager."""
        networks = [self.tokenizer.networks.encoder, self.tokenizer.networks.decoder]
        if self.adversary is not None:
            networks.append(self.adversary.discriminator)
        # Weights made of gradients walk back through the graph twice, and a compiled one frees its buffers on the way.
        adaptive = self.adversary is not None and self.adversary.config.adaptive
        torch._functorch.config.donated_buffer = not (adaptive or self._scaled)  # image.md trap 18
        for network in networks:
            network.compile(dynamic=False)

    def configure_optimizers(self) -> list[Optimizer]:
        optimizers = [build_optimizer(self.config.optim, [self.tokenizer, self.terms])]
        if self.adversary is not None:
            optimizers.append(build_optimizer(self._adversary_optim, [self.adversary]))
        return optimizers

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """One batch; on the last of an accumulation, one update."""
        accumulate = self.config.trainer.accumulate
        last = self._micro == accumulate - 1
        with self._gradient_sync(last):
            out = self._forward(batch)
            terms = self._objective(out, batch)
            loss = torch.stack(list(terms.values())).sum()
            total = loss + self._judge(out, batch, terms)
            # A loss that is inf or NaN turns every gradient into NaN, and DDP's average carries that to all ranks, so
            # one look at the norm decides for the whole world without a collective of its own.
            with torch.autocast(self.device.type, enabled=False):  # it would cast the gradients of float32 parts too
                self.manual_backward(total * (1 + 0 * total.detach()) / accumulate)
        self._stats = self.tokenizer.quantizer.merge(self._stats, out.quantized.stats)
        self.log_scalars({"loss": loss, **{f"loss/{name}": term for name, term in terms.items()}})
        self._micro += 1
        if last:
            self._update(batch)
        return {
            "loss": loss.detach(),
            "terms": {name: term.detach() for name, term in terms.items()},
            "quantized": detach(out.quantized),
            "x": self.tokenizer.compared(batch["x"]),
            "reconstruction": self.tokenizer.compared(out.x.detach()),
        }

    def _forward(self, batch: Mapping[str, Any]) -> Reconstruction:
        """One pass, with the draws of this rank's slots of the global batch."""
        step, x = self.trainer.global_step, batch["x"]
        per_rank = x.shape[0]
        first = self._micro * per_rank
        batch_size, part = self.config.data.batch_size, slice(first, first + per_rank)
        rank, world = self.trainer.global_rank, self.trainer.world_size
        place: dict[str, Any] = {"rank": rank, "world": world, "part": part}
        drawn = {
            "levels": draw_levels(self.tokenizer.quantizer, self.config.seed, step, batch_size, **place),
            "digits": draw_digits(self.tokenizer.quantizer, self.config.seed, step, batch_size, **place),
            "positions": draw_positions(self.tokenizer, self.config.seed, step, batch_size, **place),
            "seed": draw_seeds(self.tokenizer.quantizer, self.config.seed, step, batch_size, **place),
        }
        # Dropout draws from torch's own generator, which no checkpoint holds and every rank would start alike.
        torch.manual_seed(draw_seed(self.config.seed, step, self._micro, rank))
        hints = {name: None if one is None else one.to(x.device, non_blocking=True) for name, one in drawn.items()}
        return self.tokenizer(x, batch.get("lengths"), **hints)

    def _objective(self, out: Reconstruction, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Weighted terms, in float32 whatever the networks run in."""
        with torch.autocast(self.device.type, enabled=False):
            y, x = (self.tokenizer.compared(signal.float()) for signal in (out.x, batch["x"]))
            values = out.quantized.values
            outcome = Outcome(
                y, x, signal_mask(batch), out.quantized.first, out.latents.mask, batch, values, out.latents.grid
            )
            terms: dict[str, Tensor] = {}
            for name, term in self.terms.items():
                assert isinstance(term, Loss)
                terms[name] = term.config.weight * term.measure(outcome)
            return balanced(terms, self._scaled, values, outcome.first) | out.quantized.losses

    def _judge(self, out: Reconstruction, batch: Mapping[str, Any], terms: Mapping[str, Tensor]) -> Tensor | float:
        """The adversary's terms, of both sides: their graphs share no parameter that learns."""
        if self.adversary is None:
            return 0.0
        pull = torch.stack([terms[name] for name in self.terms]).sum()
        last_layer = self.tokenizer.networks.last_layer
        x, fake = batch["x"], out.x
        if (mask := signal_mask(batch)) is not None:
            # What a causal decoder makes of the nothing behind an item no term holds to silence: it would betray fakes.
            x, fake = x.where(mask, 0.0), fake.where(mask, 0.0)
        judged = self.adversary.judge(x, fake, self.trainer.global_step, pull, last_layer)
        self.log_scalars(judged.scalars)
        return sum(term for term in (judged.generator, judged.discriminator) if term is not None)

    def _update(self, batch: Mapping[str, Any]) -> None:
        """Check, then change: generator, quantizer state, average, discriminator, its averages; in this order."""
        step, optim = self.trainer.global_step, self.config.optim
        # A term may learn too: its gradients come from the same loss and go to the same optimiser.
        norm = gradient_norm([*self.tokenizer.parameters(), *self.terms.parameters()], optim.clip)
        checked = norm
        if self.adversary is not None and self.adversary.learns(step):
            judge_norm = gradient_norm(self.adversary.parameters(), self._adversary_optim.clip)
            checked = norm + judge_norm
            self.log_scalars({"optim/adversary_gradient_norm": judge_norm})
        self.guard.look(checked, step, self.global_rank, batch, wait=self.device.type == "cpu")
        lr = learning_rate(optim, step, self.config.trainer.max_steps)
        self._step(0, lr)
        if "quantizer" not in optim.freeze:
            self.tokenizer.quantizer.update(self._stats)
        if self.ema is not None:
            update_average(self.ema, self.tokenizer, optim.ema, step)
        self._update_adversary(step)
        self._micro, self._stats = 0, {}
        self.log_scalars({"optim/lr": lr, "optim/gradient_norm": norm})

    def _update_adversary(self, step: int) -> None:
        if self.adversary is None or not self.adversary.learns(step):
            return
        first = self.adversary.config.first_step
        lr = learning_rate(self._adversary_optim, step - first, self.config.trainer.max_steps - first)
        self._step(1, lr)
        self.adversary.update()
        self.log_scalars({"optim/adversary_lr": lr})

    def _step(self, number: int, lr: float) -> None:
        """One optimiser's step. Only the generator's goes through Lightning, which counts every one that does."""
        wrapped = self.optimizers()
        optimizer = wrapped[number] if isinstance(wrapped, list) else wrapped
        assert isinstance(optimizer, L.pytorch.core.optimizer.LightningOptimizer)
        set_learning_rate(optimizer.optimizer, lr)
        (optimizer if number == 0 else optimizer.optimizer).step()  # platform.md 2.1
        optimizer.zero_grad()

    def _gradient_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients travel once an update, with the last accumulated batch."""
        model = self.trainer.strategy.model
        return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Reconstruct with the weights a user would get, with and without the quantizer."""
        batch = only_valid(batch)
        tokenizer, x = self.evaluated, batch["x"]
        with torch.compiler.set_stance("eager_on_recompile"):  # clips of a hundred lengths would be compiled each
            out = tokenizer(x, batch.get("lengths"))
            bypass = tokenizer.bypass(out.latents, tuple(x.shape[2:]))
            cut = cuts(tokenizer, out, x) if self.config.log.lengths else {}
        terms = self._objective(out, batch)
        return {
            "loss": torch.stack(list(terms.values())).sum(),
            "terms": terms,
            "quantized": out.quantized,
            "x": tokenizer.compared(x),
            "reconstruction": tokenizer.compared(out.x),
            "bypass": tokenizer.compared(bypass),
            "cut": cut,
            "lengths": batch.get("lengths"),
        }

    def log_scalars(self, values: Mapping[str, Tensor | float], weight: Tensor | float = 1.0) -> None:
        """Add to the current window of the log; nothing is read from the device until the window ends."""
        self.scalars.add(values, weight)

    def on_fit_start(self) -> None:
        """What a tokenizer must know of the training set, once in the life of a run: a checkpoint has it.

        Every rank reads it: one that only waited for another's minutes of reading would run out of time.
        """
        if not self.tokenizer.wants_sample:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.tokenizer.measure(data.sample(self.config.seed))
        if self.ema is not None:
            self.ema.load_state_dict(self.tokenizer.state_dict())

    def on_train_start(self) -> None:
        self.scalars.to(self.device)
        self._micro, self._stats = 0, {}
        if self.adversary is not None:
            self.adversary.forget()

    def on_validation_start(self) -> None:
        self.guard.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        from mmtok import __version__

        self.guard.check()  # before anything is written
        checkpoint["mmtok"] = {
            "version": __version__,
            "config": to_plain(self.config),
            "world": self.trainer.world_size,
            # Since the last line of the log: the first line after a restart is that of a whole window.
            "scalars": gather_states(self.scalars.state_dict()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for state, share in own_states(checkpoint["mmtok"].get("scalars", [])):
            self.scalars.add_state(state, share)


def _advice(config: RunConfig) -> str:
    """What may help where the loss is no number any more."""
    clip = "" if config.optim.clip else "set optim.clip=1, "
    judge = "" if config.adversary is None else "lower adversary.weight or adversary.optim.lr, "
    return f"Lower optim.lr, {clip}{judge}or train with trainer.precision=32."


def _part(tokenizer: Tokenizer, name: str) -> nn.Module:
    """A part that `optim.freeze` may name."""
    networks = tokenizer.networks
    return {"encoder": networks.encoder, "decoder": networks.decoder, "quantizer": tokenizer.quantizer}[name]


def signal_mask(batch: Mapping[str, Any]) -> Tensor | None:
    """(B, 1, S) True where x (B, C, S) with `lengths` (B,) is not padding; None where nothing is padded."""
    if (lengths := batch.get("lengths")) is None:
        return None
    return (torch.arange(batch["x"].shape[-1], device=lengths.device) < lengths[:, None])[:, None]


def detach(quantized: Any) -> Any:
    """The same result without its graph, for callbacks that outlive the step."""
    return quantized._replace(
        values=quantized.values.detach(),
        losses={name: term.detach() for name, term in quantized.losses.items()},
        first=None,
    )
