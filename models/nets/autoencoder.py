"""The encoders and decoders that a model's `network` option chooses among, all with the same interface.

An encoder is (B, C, H, W) -> (B, latent) and shows `trunk`, `head` and `features`, the width between the two; a decoder is
(B, latent) -> (B, C, H, W) without the last tanh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from models.base import DataSpec, Encodes
from models.nets.conv import ConvDecoder, ConvEncoder
from models.nets.mlp import MlpDecoder, MlpEncoder
from models.nets.wae import WaeDecoder, WaeEncoder

Network = Literal["conv", "mlp", "wae"]
Encoder = ConvEncoder | MlpEncoder | WaeEncoder
Decoder = ConvDecoder | MlpDecoder | WaeDecoder


def encoder_for(network: Network, spec: DataSpec, widths: Sequence[int], latent: int) -> Encoder:
    return {"conv": ConvEncoder, "mlp": MlpEncoder, "wae": WaeEncoder}[network](spec, widths, latent)


def decoder_for(network: Network, spec: DataSpec, widths: Sequence[int], latent: int) -> Decoder:
    return {"conv": ConvDecoder, "mlp": MlpDecoder, "wae": WaeDecoder}[network](spec, widths, latent)


def code_size(autoencoder: Encodes, spec: DataSpec) -> int:
    """How many numbers an auto-encoder's code has."""
    with torch.no_grad():
        return autoencoder.encode(torch.zeros(1, *spec.shape)).shape[1]
