"""Shards to batches: what streams into training, for every modality."""

from datamodules import audio, images, text_bytes, texts, vectors  # noqa: F401, these register
