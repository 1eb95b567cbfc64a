"""Encoders and decoders by modality, behind one registry."""

from mmtok.networks import bytes1d, conv2d, mlp, queries, rotation, seanet, vit  # noqa: F401, they register
from mmtok.networks.base import EncoderConfig, Networks, networks, register_network

__all__ = ["EncoderConfig", "Networks", "networks", "register_network"]
