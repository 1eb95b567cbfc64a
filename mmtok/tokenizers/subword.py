"""Text to subwords and back, byte for byte: BPE, unigram or plain bytes, by the engine of Hugging Face's `tokenizers`.

Sennrich et al. 2016 (arXiv 1508.07909), Kudo 2018 (arXiv 1804.10959), Radford et al. 2019 for the alphabet of bytes.
Every text comes back exactly, unless `normalize` changes it on purpose: there is no unknown token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mmtok.codes import Codes, CodeSpec
from mmtok.tokenizers.base import register_tokenizer
from mmtok.tokenizers.engine import (
    Engine,
    add_control,
    byte_fallback,
    check_control,
    learn,
    new_engine,
    pieces_of,
)
from mmtok.tokenizers.fitted import FittedConfig, FittedTokenizer
from mmtok.tokenizers.texts import check_texts, read_text, write_text

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
"""What transformers reads of a vocabulary."""
END = "<|endoftext|>"
"""The control token that ends a text, where a vocabulary has it."""
_WITHOUT_EFFECT = {
    "bytes": ("vocab_size", "alphabet", "split", "digits", "min_frequency", "max_token_length"),
    "unigram": ("min_frequency",),
}
"""Model -> fields that it does not read."""


@dataclass(frozen=True, kw_only=True)
class SubwordConfig(FittedConfig):
    """What the vocabulary is made of. The same words as in `tokenizers` where it has them."""

    REQUIRES: ClassVar[tuple[str, ...]] = ("tokenizers",)

    model: Literal["bpe", "unigram", "bytes"] = "bpe"
    """Merge the most frequent pairs; keep the pieces of the likeliest cuts; or learn nothing: 256 bytes."""
    vocab_size: int = 32768
    """Tokens in all: learned ones, the alphabet, special and reserved ones, and what `pad_to` adds."""
    alphabet: Literal["bytes", "characters"] = "bytes"
    """What every text is made of at last: 256 bytes, so that tokens may end within a character (GPT-2), or characters,
    of which those that training did not see are written as bytes (SentencePiece's byte fallback)."""
    split: Literal["gpt2", "cl100k", "spaces"] = "cl100k"
    """What no token crosses: GPT-2's words, GPT-4's (case-blind contractions, line ends, signs with the space before
    them), or words with the space before them and nothing else, which merges signs into words."""
    digits: int = 3
    """Longest run of digits that is one word; 1 takes each digit by itself, 0 sets no bound."""
    normalize: Literal["none", "nfc", "nfkc"] = "none"
    """Unicode form that texts are brought to first. nfc changes bytes that look the same; nfkc also looks and meaning
    (superscripts, full-width letters): neither can be undone."""
    min_frequency: int = 2
    """Times a pair must occur to be merged; of bpe."""
    max_token_length: int = 64
    """Longest token, in signs of the alphabet: bytes or characters."""
    special: tuple[str, ...] = (END,)
    """Control tokens. They never come of text, not even of text that spells them. Like <|name|> or [NAME], in ASCII.
    <|endoftext|> is exported as what ends a text (`eos_token`); of others, a name does not tell the meaning."""
    reserved: int = 0
    """Tokens kept free for later, <|reserved:0|> ...: control tokens that get a meaning after the model was trained."""
    pad_to: int = 128
    """The vocabulary is filled with reserved tokens to a multiple of this, which matrix units like; 1 does not."""

    def __post_init__(self) -> None:
        self._refuse_without_effect()
        least = 256 + len(self.special) + self.reserved
        if self.model != "bytes" and self.vocab_size <= least:
            raise ValueError(
                f"vocab_size={self.vocab_size} leaves nothing to learn beside 256 bytes, {len(self.special)} special "
                f"and {self.reserved} reserved tokens. Use more than {least}."
            )
        floors = {"digits": 0, "min_frequency": 1, "max_token_length": 2, "reserved": 0, "pad_to": 1}
        for name, floor in floors.items():
            if getattr(self, name) < floor:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {floor}.")
        check_control(self.special)
        if self.model != "bytes" and self.vocab_size % self.pad_to:
            below = self.vocab_size // self.pad_to * self.pad_to
            raise ValueError(
                f"vocab_size={self.vocab_size} is no multiple of pad_to={self.pad_to}. Use {below or self.pad_to} or "
                f"{below + self.pad_to}, or pad_to=1."
            )

    def _refuse_without_effect(self) -> None:
        for name in _WITHOUT_EFFECT.get(self.model, ()):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"{name}={getattr(self, name)} has no effect on model={self.model}. Leave it out.")


@register_tokenizer("subword", SubwordConfig)
class SubwordTokenizer(FittedTokenizer):
    """x list[str] <-> ids (B, 1, T), one level; `source_size` (B, 1) is in bytes of UTF-8.

    Attributes:
        model: the engine's `tokenizer.json`, as bytes (uint8), so that weights and vocabulary travel alike.
    """

    config: SubwordConfig
    suffix = ".txt"
    model: Tensor

    def __init__(self, config: SubwordConfig, quantizer: None = None) -> None:
        super().__init__()
        if quantizer is not None:
            raise ValueError("a vocabulary of text has no quantizer. Leave the block out: quantizer=null.")
        self.config = config
        self.register_buffer("model", torch.empty(0, dtype=torch.uint8))
        self._engine: Engine | None = None

    @property
    def learns_of(self) -> str:
        return "documents"

    @property
    def fitted(self) -> bool:
        return bool(self.model.numel())

    @property
    def engine(self) -> Engine:
        """The engine, ready to encode."""
        self.require_fitted()
        if self._engine is None:
            from tokenizers import Tokenizer as HFTokenizer

            self._engine = HFTokenizer.from_buffer(self.model.cpu().numpy().tobytes())
            # Otherwise a text that spells a control token would become one: whoever writes texts would steer models.
            self._engine.encode_special_tokens = True
        return self._engine

    @property
    def learns(self) -> bool:
        return self.config.model != "bytes"

    @property
    def spec(self) -> CodeSpec:
        size = self.engine.get_vocab_size() if self.fitted else self.config.vocab_size
        return CodeSpec(modality="text", codebook_sizes=(size,))

    def describe(self) -> dict[str, str]:
        return {"model": self.config.model, "vocabulary": f"{self.spec.codebook_sizes[0]:,}"}

    def loaded(self) -> None:
        self._engine = None

    def fit(self, sample: Iterable[str]) -> dict[str, float]:
        """Learn a vocabulary. The same texts give the same one in every process, with one exception.

        Of unigram, the engine prunes by sums whose last digits differ from process to process: where two pieces are
        worth exactly the same at the edge of what is kept, either may stay. None did in what we measured.

        Raises:
            ValueError: there is too little text, or its characters alone are more than the vocabulary holds.
        """
        config = self.config
        engine = new_engine(config)
        if config.model != "bytes":
            twice = config.model == "bpe" and config.alphabet == "characters"
            engine = learn(engine, config, list(sample) if twice and isinstance(sample, Iterator) else sample)
        learned = engine.get_vocab_size()
        free = config.reserved + -(learned + len(config.special) + config.reserved) % config.pad_to
        add_control(engine, [*config.special, *(f"<|reserved:{i}|>" for i in range(free))])
        self.model = torch.frombuffer(bytearray(engine.to_str().encode()), dtype=torch.uint8)
        self.loaded()
        return {"vocabulary": engine.get_vocab_size(), "learned": learned, "reserved": free}

    def preprocess(self, source: Any) -> list[str]:  # type: ignore[override]  # the contract of x: text is list[str]
        """A path, bytes of UTF-8, a string or several -> x."""
        return read_text(source)

    def check(self, x: Any) -> None:
        check_texts(x)

    def encode(self, x: list[str], lengths: Tensor | None = None, *, budget: int | None = None) -> Codes:  # type: ignore[override]
        """Texts -> codes, shorter ones filled with -1."""
        self.check(x)
        if lengths is not None or budget is not None:
            raise ValueError("texts have neither lengths nor a budget: each is encoded whole.")
        rows = self.tokens(x)
        longest = max(map(len, rows), default=0)
        ids = torch.full((len(rows), 1, longest), -1)
        for i, row in enumerate(rows):
            ids[i, 0, : len(row)] = torch.tensor(row, dtype=torch.int64)
        sizes = torch.tensor([len(text.encode()) for text in x], dtype=torch.int64)[:, None]
        return Codes(ids, torch.tensor([len(row) for row in rows], dtype=torch.int64), sizes)

    def tokens(self, x: Sequence[str]) -> list[list[int]]:
        """The ids of each text, which was checked: what `encode` lays out as one tensor."""
        return [one.ids for one in self.engine.encode_batch_fast(list(x), add_special_tokens=False)]

    def texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids: what `decode` gives of the rows of a tensor."""
        return self.engine.decode_batch([list(row) for row in rows], skip_special_tokens=False)

    def decode(self, codes: Codes) -> list[str]:  # type: ignore[override]
        """Codes -> texts. Control tokens are written out as they are spelled."""
        rows = [row[0, :length].tolist() for row, length in zip(codes.ids, codes.lengths.tolist(), strict=True)]
        size = self.spec.codebook_sizes[0]
        for i, row in enumerate(rows):
            if row and not 0 <= min(row) <= max(row) < size:
                raise ValueError(f"text {i} has ids outside 0 to {size - 1}: they are of another vocabulary.")
        return self.texts(rows)

    def write(self, x: list[str], path: Path) -> None:  # type: ignore[override]
        write_text(x[0], path)

    def save_engine(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `AutoTokenizer` and `mmtok vocab merge` read."""
        self.require_fitted()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER).write_bytes(self.model.cpu().numpy().tobytes())
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        if END in self.config.special:
            settings["eos_token"] = END
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    def is_control(self) -> Tensor:
        """(V,) bool: special and reserved tokens."""
        flags = torch.zeros(self.spec.codebook_sizes[0], dtype=torch.bool)
        flags[list(self.engine.get_added_tokens_decoder())] = True
        return flags

    def is_fallback(self) -> Tensor:
        """(V,) bool: tokens that stand for one byte beyond ASCII, or one byte of an unseen character."""
        flags = torch.zeros(self.spec.codebook_sizes[0], dtype=torch.bool)
        flags[byte_fallback(self.engine, self.config)] = True
        return flags

    def pieces(self) -> list[bytes]:
        """The bytes of each token, in order of ids."""
        return pieces_of(self.engine, self.config)
