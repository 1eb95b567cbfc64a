"""Shards to batches: what streams into training, for every modality."""

from datamodules import images  # noqa: F401, registers
