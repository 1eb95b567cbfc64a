"""What is measured and shown of each modality: one table, keyed by `spec.modality`."""

from __future__ import annotations

from mmtok.codes import CodeSpec
from mmtok.evaluation.audio_modality import AudioModality
from mmtok.evaluation.image_modality import ImageModality
from mmtok.evaluation.modality import Modality
from mmtok.evaluation.text_modality import TextModality
from mmtok.evaluation.vector_modality import VectorModality

MODALITIES: dict[str, Modality] = {
    "image": ImageModality(), "audio": AudioModality(), "text": TextModality(), "vector": VectorModality(),
}  # fmt: skip
"""A plugin adds its own."""


def modality_of(spec: CodeSpec) -> Modality | None:
    """What is measured and shown of these signals; None where nothing is known of their modality."""
    return MODALITIES.get(spec.modality)
