"""Pictures and sounds from captions under the grammar, captions from pictures and sounds; to PNG, WAV and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from held_out import Item, items
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, LlamaForCausalLM

from mmtok.export.vocab_map import Vocabulary

PICTURES, TRIES, SOUNDS = 12, 3, 4
"""Captions to paint, pictures of each, and captions to speak in each of two languages."""
SPOKEN = ("fr", "ca")
SCALE = 3


class Speaker:
    """A language model with its vocabulary and the tokenizers behind it."""

    def __init__(self, out: Path, threads: int) -> None:
        """Load what the run in `out` made, as somebody without mmtok would."""
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.out, self.vocab = out, Vocabulary.read(out / "vocab")
        self.text = AutoTokenizer.from_pretrained(out / "vocab")
        self.model = LlamaForCausalLM.from_pretrained(out / "lm").eval()
        self.signals = {
            prefix: AutoModel.from_pretrained(out / "bundles" / name, trust_remote_code=True).eval()
            for prefix, name in (("img", "image"), ("aud", "audio"))
            if (out / "bundles" / name).is_dir()
        }
        # Of pictures all grids are alike; a row of tokens has none.
        grids = "img" in self.signals and self.vocab.spec("img").length == "grid"
        self.grid = (4, 4) if grids else None

    def items(self, prefix: str, split: str) -> list[Item]:
        """See `held_out.items`."""
        name = {"img": "image", "aud": "audio"}[prefix]
        return items(self.out / "codes" / f"{name}-{split}", self.vocab, prefix, self.text)

    def create(self, prefix: str, lines: Sequence[str]) -> list[Tensor]:
        """A signal for each line such as "en: An owl.": (C, H, W) or (C, S)."""
        spec = self.vocab.spec(prefix)
        limits: dict[str, Any] = {"grid": self.grid} if prefix == "img" and self.grid else {}
        place, made = self.vocab.find(spec), []
        for line in lines:
            prompt = torch.tensor([[self.text.bos_token_id, *self.text(line).input_ids, place.start]])
            ids = self.model.generate(
                prompt,
                logits_processor=[self.vocab.logits_processor(spec, **limits)],
                do_sample=True,
                temperature=0.7,
                top_k=20,
                max_new_tokens=160,
                eos_token_id=place.end,
            )[0, prompt.shape[1] - 1 :]
            if ids[-1] != place.end:  # a sound that found no end: its last whole position is one
                whole = (len(ids) - 1) // len(place.blocks) * len(place.blocks)
                ids = torch.cat([ids[: whole + 1], ids.new_tensor([place.end])])
            made.append(self.decode(prefix, ids))
        return made

    def decode(self, prefix: str, ids: Sequence[int] | Tensor) -> Tensor:
        """The signal behind the ids of one item."""
        tok, grid = self.signals[prefix], self.grid if prefix == "img" else None
        with torch.inference_mode():
            return tok.decode(tok.from_ids([torch.as_tensor(ids)], vocab=self.out / "vocab", grid=grid))[0]

    def caption(self, item: Item) -> str:
        """What the model says to a picture or a sound, in the language of its caption."""
        asked = self.text(f"{item.language}:").input_ids
        prompt = torch.tensor([[self.text.bos_token_id, *item.ids, *asked]])
        ids = self.model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=self.text.eos_token_id)
        return self.text.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True).strip()


def write_samples(out: Path, threads: int) -> None:
    """Write pictures.png, sounds/*.wav and captions.json into out/samples."""
    speaker, folder = Speaker(out, threads), out / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    heard = [
        item for prefix, paint in (("img", write_pictures), ("aud", write_sounds)) if prefix in speaker.signals
        for item in paint(speaker, folder)
    ]  # fmt: skip
    said = [{"key": item.key, "right": item.caption, "said": speaker.caption(item)} for item in heard]
    (folder / "captions.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_pictures(speaker: Speaker, folder: Path) -> list[Item]:
    """Sheets of pictures from their codes and painted anew; the held-out items on them."""
    pictures = {split: some(speaker.items("img", split), ("en",), PICTURES) for split in ("train", "val")}
    for split, chosen in pictures.items():
        rows = [[speaker.decode("img", item.ids) for item in chosen]]
        for _ in range(TRIES):
            rows.append(speaker.create("img", [f"en: {item.caption}" for item in chosen]))
        sheet([item.caption for item in chosen], rows).save(folder / f"pictures-{split}.png")
    return pictures["val"]


def write_sounds(speaker: Speaker, folder: Path) -> list[Item]:
    """Names from their codes and spoken anew; the held-out items among them."""
    (folder / "sounds").mkdir(exist_ok=True)
    spoken = [one for language in SPOKEN for one in some(speaker.items("aud", "val"), (language,), SOUNDS)]
    for item in spoken:
        [made] = speaker.create("aud", [f"{item.language}: {item.caption}"])
        for what, sound in (("codec", speaker.decode("aud", item.ids)), ("made", made)):
            speaker.signals["aud"].tokenizer.write(sound[None], folder / "sounds" / f"{item.key}.{what}.wav")
    return spoken


def some(chosen: list[Item], languages: Sequence[str], count: int) -> list[Item]:
    """The first items with different captions in these languages."""
    different = {item.caption: item for item in reversed(chosen) if item.language in languages}
    return list(reversed(different.values()))[:count]


def sheet(captions: Sequence[str], rows: Sequence[Sequence[Tensor]]) -> Image.Image:
    """Pictures (3, H, W) in [-1, 1] under their captions: a column for each."""
    side = rows[0][0].shape[-1] * SCALE
    width, head = side + 6, 40
    page = Image.new("RGB", (width * len(captions), head + len(rows) * width), "white")
    draw = ImageDraw.Draw(page)
    for column, caption in enumerate(captions):
        words, lines = caption.split(), [""]
        for word in words:
            lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < 16 else [*lines, word]
        draw.multiline_text((column * width + 3, 2), "\n".join(lines[:3]), fill="black", font_size=10)
        for row, pictures in enumerate(rows):
            values = ((pictures[column].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            picture = Image.fromarray(values).resize((side, side), Image.Resampling.NEAREST)
            page.paste(picture, (column * width + 3, head + row * width))
    return page
