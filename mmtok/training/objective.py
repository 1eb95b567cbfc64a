"""Whether the blocks of a recipe fit each other, beyond what each of them can check by itself."""

from __future__ import annotations

from datamodules.base import DataConfig, datamodules
from mmtok.config import RunConfig
from mmtok.losses.base import losses
from mmtok.schema import ConfigError
from mmtok.tokenizers.base import Tokenizer


def check_objective(config: RunConfig, tokenizer: Tokenizer) -> None:
    """Refuse data that the tokenizer is not for, and terms, and an adversary, that cannot judge what it gives.

    Raises:
        ConfigError: names them, and what can.
    """
    check_data(config.data, tokenizer.spec.modality)
    for name, term in config.loss.items():
        if term is not None and term.takes not in (tokenizer.gives, "codes"):
            fit = [one for one in losses.names() if losses.config_class(one).takes == tokenizer.gives]
            raise ConfigError(
                f"loss.{name}.name={losses.name_of(term)} compares {term.takes}, and this tokenizer gives "
                f"{tokenizer.gives}. Use one of: {', '.join(fit)}."
            )
    check_balance(config)
    check_batch(config)
    if config.adversary is not None and tokenizer.gives != "signals":
        raise ConfigError(f"an adversary judges signals, and this tokenizer gives {tokenizer.gives}: adversary=null.")


def check_batch(config: RunConfig) -> None:
    """Refuse batches with fewer items than a term needs: one pair could be mistaken for no other.

    Raises:
        ConfigError: names the term.
    """
    together = config.data.batch_size // config.trainer.accumulate
    for name, term in config.loss.items():
        if term is not None and together < term.least_items:
            raise ConfigError(
                f"loss.{name}.name={losses.name_of(term)} needs {term.least_items} items at a time, and "
                f"data.batch_size={config.data.batch_size} with trainer.accumulate={config.trainer.accumulate} gives "
                f"{together}. Use a larger batch."
            )


def check_balance(config: RunConfig) -> None:
    """Refuse terms that are scaled by gradients where nothing is left to compare them with.

    Raises:
        ConfigError: names them.
    """
    terms = {name: term for name, term in config.loss.items() if term}
    scaled = [name for name, term in terms.items() if term.balance]
    if scaled and len(scaled) == len(terms):
        raise ConfigError(
            f"loss.{scaled[0]}.balance=true scales the term by the gradient of those that are not scaled, and there "
            f"are none. Use loss.{scaled[0]}.balance=false."
        )
    if scaled and "encoder" in config.optim.freeze:
        raise ConfigError(
            f"loss.{scaled[0]}.balance=true compares gradients on their way to the encoder, which optim.freeze stops. "
            f"Use loss.{scaled[0]}.balance=false."
        )


def check_data(data: DataConfig, wanted: str) -> None:
    """Refuse data that gives something else than a tokenizer wants.

    Raises:
        ConfigError: names it, and what would do.
    """
    if data.gives not in ("", wanted):
        fit = [one for one in datamodules.names() if datamodules.config_class(one).gives == wanted]
        raise ConfigError(
            f"data.name={datamodules.name_of(data)} gives {data.gives}, and this tokenizer is trained on "
            f"{wanted}. Use one of: {', '.join(fit)}."
        )
