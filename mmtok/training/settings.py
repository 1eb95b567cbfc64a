"""The blocks of a recipe that say how training goes: optimiser, adversary, trainer, checkpoints.

The log's is `logs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmtok.losses.adversarial import Objective
from mmtok.networks.discriminators import DiscriminatorConfig
from mmtok.networks.discriminators.patchgan import PatchGANConfig
from mmtok.schema import ConfigError

Part = Literal["encoder", "quantizer", "decoder"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, learning rate over time, clipping and weight averaging."""

    name: Literal["adamw", "adam"] = "adamw"
    """Adam with decoupled weight decay, or without decay at all."""
    lr: float = 1e-4
    """Learning rate at its highest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moments. GAN recipes use (0.5, 0.9)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Decoupled decay, of weights with two axes or more (norms and biases are left alone)."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Course of the learning rate after the warm-up, down to `final_lr` at `trainer.max_steps`."""
    warmup_steps: int = 0
    """Updates over which the learning rate rises linearly from zero."""
    final_lr: float = 0.0
    """Learning rate at the end, as a share of `lr`."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 does not clip (the norm is still watched for NaN)."""
    ema: float = 0.0
    """Decay of the averaged weights that validation, evaluation and export use; 0 keeps none."""
    freeze: tuple[Part, ...] = ()
    """Parts that keep the weights they start with: for fine-tuning from `init_from`. A tokenizer whose encoder and
    quantizer are frozen gives the same codes as before."""

    def __post_init__(self) -> None:
        if self.name == "adam" and self.weight_decay:
            raise ConfigError("optim.weight_decay has no effect with 'adam'. Use adamw, or leave it out.")
        if self.clip < 0:
            raise ConfigError(f"optim.clip={self.clip} must be at least 0; 0 does not clip.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas={list(self.betas)} must each be in [0, 1), for example [0.9, 0.999].")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"optim.ema={self.ema} must be in [0, 1), for example 0.999.")
        if self.lr <= 0:
            raise ConfigError(f"optim.lr={self.lr} must be above 0.")
        if {"encoder", "decoder"} <= set(self.freeze):
            raise ConfigError("optim.freeze leaves nothing to train. Leave the encoder or the decoder out.")


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig:
    """A discriminator that learns to tell reconstructions from signals, and pulls the generator after it."""

    discriminator: DiscriminatorConfig = field(default_factory=PatchGANConfig)
    """The network that judges. Its `in_channels` is filled in."""
    objective: Objective = "hinge"
    """What the discriminator wants: margins, the likelihood of being right, or 1 for signals and 0 for the rest."""
    generator_objective: Objective | None = None
    """What the generator wants of the discriminator's logits; null takes the discriminator's objective."""
    weight: float = 0.1
    """Factor of the generator's term. Fixed weights from 0.02 (VQGAN+) over 0.1 (IBQ) to 0.5 (LlamaGen) are in use."""
    feature_weight: float = 0.0
    """Factor of feature matching: the discriminator's activations on reconstructions are pulled to those on signals."""
    feature_norm: Literal["plain", "relative"] = "plain"
    """Whether each layer's distance is divided by its activation, so that layers weigh alike (EnCodec)."""
    share: float = 1.0
    """Share of the updates in which the discriminator learns, drawn from the update's number. EnCodec takes 0.67."""
    start: int = 0
    """Update from which the generator is judged."""
    warmup_steps: int = 0
    """Updates over which the generator's weight then rises linearly."""
    lead: int = 0
    """Updates before `start` at which the discriminator begins to learn. One that knows nothing, at full weight,
    undoes a good reconstruction: give it a lead where `start` is late, or where `init_from` brings a trained one."""
    adaptive: bool = False
    """Scale the weight so that at the decoder's last layer the adversary pulls as hard as the reconstruction (taming).
    Two more partial backward passes an update, and one collective."""
    adaptive_max: float = 1e4
    """Largest adaptive factor."""
    lecam: float = 0.0
    """Weight of LeCAM's regulariser, which holds logits near the averages of the other side's; 0 leaves it out."""
    lecam_decay: float = 0.999
    """Memory of those averages."""
    optim: OptimConfig | None = None
    """Optimiser of the discriminator; null takes the generator's settings. Its schedule counts its own updates."""

    def __post_init__(self) -> None:
        for name in ("start", "warmup_steps", "lead", "weight", "feature_weight", "lecam"):
            if getattr(self, name) < 0:
                raise ConfigError(f"adversary.{name}={getattr(self, name)} must be at least 0.")
        if not 0 < self.share <= 1:
            raise ConfigError(f"adversary.share={self.share} must be above 0 and at most 1.")
        if self.adaptive_max <= 0:
            raise ConfigError(f"adversary.adaptive_max={self.adaptive_max} must be above 0: it bounds a factor.")
        if not 0 <= self.lecam_decay < 1:
            raise ConfigError(f"adversary.lecam_decay={self.lecam_decay} must be in [0, 1), for example 0.999.")
        if self.lead > self.start:
            raise ConfigError(
                f"adversary.lead={self.lead} is more than adversary.start={self.start}: the discriminator cannot begin "
                "before the run. Raise start, or lower lead."
            )
        if self.optim is not None and (self.optim.ema or self.optim.freeze):
            raise ConfigError("adversary.optim: ema and freeze are of the generator. Set optim.ema and optim.freeze.")

    def without_effect(self, max_steps: int) -> list[str]:
        """A line for each setting that a run of so many updates will not feel."""
        lines, default = [], {name: field.default for name, field in self.__dataclass_fields__.items()}
        if self.start >= max_steps:
            lines.append(
                f"adversary.start={self.start:,} is past the last update, trainer.max_steps={max_steps:,}: "
                "the generator is never judged."
            )
        elif self.start + self.warmup_steps > max_steps:
            lines.append(
                f"adversary.warmup_steps={self.warmup_steps:,} is not over at trainer.max_steps={max_steps:,}."
            )
        if not (self.weight or self.feature_weight):
            lines.append("adversary.weight=0: the discriminator learns, and the generator is never judged.")
        if not self.feature_weight and self.feature_norm != default["feature_norm"]:
            lines.append("adversary.feature_norm has no effect while adversary.feature_weight is 0.")
        if not self.lecam and self.lecam_decay != default["lecam_decay"]:
            lines.append("adversary.lecam_decay has no effect while adversary.lecam is 0.")
        if not self.adaptive and self.adaptive_max != default["adaptive_max"]:
            lines.append("adversary.adaptive_max has no effect while adversary.adaptive is false.")
        return lines

    @property
    def first_step(self) -> int:
        """The update in which the discriminator learns first."""
        return self.start - self.lead


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long, on what, in which precision."""

    max_steps: int
    """Updates of the generator."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train; auto takes GPUs where there are any."""
    devices: int | Literal["auto"] = 1
    """Processes (GPUs) of each node."""
    num_nodes: int = 1
    """Machines."""
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    """Of the networks. Losses, metrics and quantizers stay in float32. 16-mixed is refused, with the reason."""
    accumulate: int = 1
    """Batches whose gradients make one update."""
    val_every: int = 1000
    """Updates between validations; 0 validates at the end only."""
    compile: bool = False
    """Compile encoder, decoder and discriminator with torch.compile: about a minute more at the start, faster steps on
    a GPU."""
    threads: int = 0
    """CPU threads of each process for arithmetic; 0 leaves torch's choice."""
    agree_every: int = 10
    """Updates between two comparisons, over ranks, of whether one was told to stop (SIGUSR1, SIGTERM)."""

    def __post_init__(self) -> None:
        if self.precision == "16-mixed":
            raise ConfigError(
                "trainer.precision=16-mixed scales the loss, and one scale cannot serve two optimisers: gradients "
                "would be clipped before they are scaled back. Use bf16-mixed, which needs none."  # platform.md 2.7
            )
        for name in ("max_steps", "num_nodes", "accumulate", "agree_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} must be at least 1.")
        if self.devices != "auto" and self.devices < 1:
            raise ConfigError(f"trainer.devices={self.devices} must be at least 1, or auto.")
        for name in ("val_every", "threads"):
            if getattr(self, name) < 0:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} must be at least 0.")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved, and how much of it is kept."""

    every_steps: int = 1000
    """Updates between checkpoints; 0 saves by time and at the end only."""
    every_minutes: float = 30.0
    """Minutes between checkpoints, whichever comes first; 0 saves by steps and at the end only."""
    keep: int = 2
    """Newest checkpoints to keep as `step-N.ckpt`, `last.ckpt` being a second name of the newest: 2 leave one to fall
    back to where that is damaged. 0 keeps `last.ckpt` alone."""
