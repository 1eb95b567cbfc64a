"""Items to look at, to listen to and to read: inputs, and what came back, as files that a browser opens."""

from __future__ import annotations

from pathlib import Path

from mmtok.evaluation.report import EvaluationReport
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.texts import write_text


def write_examples(report: EvaluationReport, tokenizer: Tokenizer, folder: Path) -> None:
    """`input-0.png`, `output-0.png`, ... or `.wav` or `.txt`; files of an earlier measure are written over."""
    folder.mkdir(parents=True, exist_ok=True)
    if report.examples is not None:
        from torchvision.transforms.functional import to_pil_image

        for name, pictures in zip(("input", "output"), report.examples, strict=True):
            for number, picture in enumerate(pictures):
                to_pil_image(picture).save(folder / f"{name}-{number}.png")
    if report.clips is not None:
        for name, clips in zip(("input", "output"), report.clips, strict=True):
            for number, clip in enumerate(clips):
                tokenizer.write(clip[None], folder / f"{name}-{number}.wav")
    if report.texts is not None:
        for name, texts in zip(("input", "output"), report.texts, strict=True):
            for number, text in enumerate(texts):
                write_text(text, folder / f"{name}-{number}.txt")
