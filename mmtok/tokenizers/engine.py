"""The parts of a text engine: `tokenizers` is put together here and nowhere else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

    from mmtok.tokenizers.subword import SubwordConfig
else:
    Engine = Any  # the engine is imported where text is met

# A word is a space with letters, digits or signs behind it. What differs is case, line ends and digits.
_SPLITS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
    r"\s+(?!\S)|\s+",
    "spaces": r" ?(?:(?!\p{N})\S)+|DIGITS|\s+(?!\S)|\s+",
}


def pattern(split: str, digits: int) -> str:
    """What one word is, as a regular expression."""
    lead = "" if split == "cl100k" and digits else " ?"
    return _SPLITS[split].replace("DIGITS", lead + r"\p{N}" + (f"{{1,{digits}}}" if digits else "+"))


def new_engine(config: SubwordConfig) -> Engine:
    """An engine that has learned nothing yet; of `bytes`, ready."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if config.model == "bpe":
        engine = Tokenizer(models.BPE())
    elif config.model == "unigram":
        engine = Tokenizer(models.Unigram())
    else:
        # In order of the bytes, so that an id is a byte.
        spelled = byte_letters()
        engine = Tokenizer(models.BPE(vocab={spelled[byte]: byte for byte in range(256)}, merges=[]))
        assert set(alphabet) == set(spelled)
    if config.normalize != "none":
        engine.normalizer = {"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}[config.normalize]()
    split = pre_tokenizers.Split(Regex(pattern(config.split, config.digits)), "isolated")
    if config.alphabet == "bytes":
        bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])
        engine.decoder = decoders.ByteLevel()
    else:
        # Spaces stay spaces. Written as U+2581, as SentencePiece does, a text that holds that sign comes back wrong.
        engine.pre_tokenizer = split
        engine.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return engine


def check_control(names: Sequence[str]) -> None:
    """Refuse names of control tokens that go wrong sooner or later: the engine's byte-level decoder breaks letters
    beyond ASCII in them, and a name that is the beginning of another one is found inside it.

    Raises:
        ValueError: says what is wrong with which.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"special={list(names)} must be different.")
    for name in names:
        closed = len(name) > 2 and (name[0], name[-1]) in (("<", ">"), ("[", "]"))
        if not closed or not name.isascii() or not name.isprintable() or " " in name:
            raise ValueError(f"special={name!r} must be ASCII without spaces, and closed. Example: <|name|> or [NAME].")
        if re.fullmatch(r"<\|reserved:\d+\|>|<0x[0-9A-F]{2}>", name):
            raise ValueError(f"special={name!r} is the name of a token that every vocabulary may have. Use another.")


def between(texts: Iterable[str], names: Sequence[str]) -> Iterator[str]:
    """What stands between the names in texts. A text that spells a control token often enough would teach it as a word,
    and then both had one id.

    >>> list(between(["a<|end|>b", "c"], ["<|end|>"]))
    ['a', 'b', 'c']
    """
    found = re.compile("|".join(map(re.escape, names))) if names else None
    for text in texts:
        yield from filter(None, found.split(text)) if found else (text,)


def learn(engine: Engine, config: SubwordConfig, sample: Iterable[str]) -> Engine:
    """The engine with a vocabulary.

    Args:
        engine: a new one.
        config: what it shall be made of.
        sample: texts; gone through twice for bpe of characters, so no iterator there.

    Raises:
        ValueError: there is too little text, or its characters alone are more than the vocabulary holds.
    """
    characters = common_characters(engine, config, between(sample, config.special))
    some = (text for text in between(sample, config.special) if text)
    first = next(some, None)
    if first is None:
        raise ValueError("there is no text to learn from. Check data.shards and data.sample_mb.")
    most = config.vocab_size - len(config.special) - config.reserved
    try:
        engine.train_from_iterator(chain([first], some), trainer_of(config, characters))
    except Exception as error:  # the engine's own have no class of theirs
        if "not large enough" not in str(error):
            raise
        raise ValueError(
            f"the sample has more different characters than the {most:,} tokens there is room for. Use "
            "alphabet=bytes, or a larger vocab_size."
        ) from error
    state = json.loads(engine.to_str())
    if config.model == "unigram" and any(score is None for _, score in state["model"]["vocab"]):
        raise ValueError("the sample is too small to tell likely pieces from others. Give it more text.")
    if config.model == "unigram":
        state["model"]["vocab"] = settled(state["model"]["vocab"])
    return engine_of(with_bytes(state) if config.alphabet == "characters" else state)


def common_characters(engine: Engine, config: SubwordConfig, texts: Iterable[str]) -> list[str]:
    """The characters that a bpe of characters starts with: the most frequent ones, for half its room.

    Counted here: of equally frequent ones the engine takes others in every process. Empty for other models.
    """
    if (config.model, config.alphabet) != ("bpe", "characters"):
        return []
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(engine.normalizer.normalize_str(text) if engine.normalizer else text)
    return sorted(counts, key=lambda one: (-counts[one], one))[: _room(config) // 2]


def settled(vocab: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """The pieces of a unigram model and their scores, with what differs from process to process taken out.

    The engine goes through its pieces in an order drawn anew by each process. What depends on it: the last digits of
    sums; the order of equal scores; and signs of the alphabet that earned no score, which get the lowest one and 0.0001
    more each, in that order. Here they all have the lowest, and scores four decimals.

    >>> settled([("ab", -1.00000001), ("x", -9.0), ("c", -8.9999), ("a", -1.00000002)])
    [('a', -1.0), ('ab', -1.0), ('c', -9.0), ('x', -9.0)]
    """
    step, scores = 1e-4, dict(vocab)
    single = [score for piece, score in scores.items() if len(piece) == 1]
    lowest = min(single, default=0.0)
    for piece, score in scores.items():
        steps = (score - lowest) / step
        if len(piece) == 1 and steps < len(single) and abs(steps - round(steps)) < 1e-4:
            score = lowest
        scores[piece] = round(score, 4)
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


def add_control(engine: Engine, names: Sequence[str]) -> None:
    """Add control tokens behind what was learned.

    Raises:
        ValueError: one of them was learned as a word: only a normalization makes names of what is none.
    """
    for name in names:
        if engine.token_to_id(name) is not None:
            raise ValueError(
                f"the text spells {name!r} so often that it was learned. Use split=cl100k or another name."
            )
    engine.add_special_tokens(list(names))


def _room(config: SubwordConfig) -> int:
    """Tokens to learn, with the alphabet: all but what is added afterwards."""
    return config.vocab_size - len(config.special) - config.reserved - 256 * (config.alphabet == "characters")


def trainer_of(config: SubwordConfig, characters: list[str]) -> Any:
    """What teaches the engine, to leave room for what is added afterwards.

    Args:
        config: what the vocabulary shall be made of.
        characters: the alphabet of a bpe of characters; others are written as bytes.
    """
    from tokenizers import pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if config.alphabet == "bytes" else characters
    common: dict[str, Any] = {"vocab_size": _room(config), "initial_alphabet": alphabet, "show_progress": False}
    if config.model == "bpe":
        if config.alphabet == "characters":
            common["limit_alphabet"] = len(characters)
        return trainers.BpeTrainer(
            min_frequency=config.min_frequency, max_token_length=config.max_token_length, **common
        )
    return trainers.UnigramTrainer(max_piece_length=config.max_token_length, **common)


def with_bytes(state: dict[str, Any]) -> dict[str, Any]:
    """A `tokenizer.json` and a token for each byte behind what was learned, for characters it never saw.

    They are part of the model. As special tokens, as some trainers make them, they would match texts that spell them.
    """
    model, names = state["model"], [f"<0x{byte:02X}>" for byte in range(256)]
    if model["type"] == "BPE":
        model["vocab"] |= {name: len(model["vocab"]) + i for i, name in enumerate(names)}
    else:
        least = min((score for _, score in model["vocab"]), default=0.0)
        model["vocab"] += [(name, least - 10) for name in names]
        model["unk_id"] = len(model["vocab"]) - 256  # never given, and no model without it
    return state | {"model": model | {"byte_fallback": True}}


def engine_of(state: dict[str, Any]) -> Engine:
    """The engine of a `tokenizer.json`."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(state))


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2): itself where it can be printed."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printed else chr(next(others)) for byte in range(256)]


def pieces_of(engine: Engine, config: SubwordConfig) -> list[bytes]:
    """The bytes of each token, in order of ids; control tokens as they are spelled."""
    added = engine.get_added_tokens_decoder()
    bytes_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    found = []
    for number in range(engine.get_vocab_size()):
        token = engine.id_to_token(number)
        assert token is not None, "ids have no gaps"
        if number in added or config.alphabet == "characters":
            named = number not in added and len(token) == 6 and token.startswith("<0x")
            found.append(bytes([int(token[3:5], 16)]) if named else token.encode())
        else:
            found.append(bytes(bytes_of[letter] for letter in token))
    return found


def byte_fallback(engine: Engine, config: SubwordConfig) -> list[int]:
    """Ids of tokens that are a single byte beyond ASCII: what a character costs that has no token of its own."""
    names = (
        [f"<0x{byte:02X}>" for byte in range(256)]
        if config.alphabet == "characters"
        else [letter for byte, letter in enumerate(byte_letters()) if byte >= 128]
    )
    return [number for name in names if (number := engine.token_to_id(name)) is not None]
