"""The encoders and decoders that a model's `network` option chooses among, all with the same interface.

An encoder is (B, C, H, W) -> (B, latent) and shows `trunk`, `head` and `features`, the width between the two; a decoder is
(B, latent) -> (B, C, H, W), not yet bounded. With principal components beside them, both start at zero and add to what those say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.base import DataSpec, Encodes
from models.nets.components import Components
from models.nets.conditions import join
from models.nets.conv import ConvDecoder, ConvEncoder, RefiningDecoder, start_at_zero
from models.nets.mlp import MlpDecoder, MlpEncoder
from models.nets.wae import WaeDecoder, WaeEncoder

Network = Literal["conv", "mlp", "wae"]
Encoder = ConvEncoder | MlpEncoder | WaeEncoder
Decoder = ConvDecoder | MlpDecoder | WaeDecoder | RefiningDecoder


def encoder_for(network: Network, spec: DataSpec, widths: Sequence[int], latent: int, components: Components | None = None) -> Encoder:
    """`components` are what the encoder's code will be added to: its head starts at zero then."""
    encoder = {"conv": ConvEncoder, "mlp": MlpEncoder, "wae": WaeEncoder}[network](spec, widths, latent)
    if components is not None:
        start_at_zero(encoder.head)
    return encoder


def decoder_for(network: Network, spec: DataSpec, widths: Sequence[int], latent: int, components: Components | None = None) -> Decoder:
    """`components` are what the decoder's picture will be added to: its last layer starts at zero then, and a convolutional one refines."""
    if components is not None and network == "conv":
        return RefiningDecoder(spec, widths, latent)
    decoder = {"conv": ConvDecoder, "mlp": MlpDecoder, "wae": WaeDecoder}[network](spec, widths, latent)
    if components is not None:
        start_at_zero([layer for layer in decoder.modules() if isinstance(layer, (nn.Linear, nn.ConvTranspose2d))][-1])
    return decoder


def code_of(encoder: Encoder, components: Components | None, image: Tensor) -> Tensor:
    """The code of images (B, C, H, W), with that of the components where there are any: (B, latent)."""
    code: Tensor = encoder(image)
    return code if components is None else code.float() + components.encode(image)


def raw_image(decoder: Decoder, components: Components | None, code: Tensor, told: Tensor | None = None) -> Tensor:
    """What a decoder makes of codes (B, latent), and of a condition's vectors (B, K), before it is bounded: (B, C, H, W), float32."""
    joined = code if told is None else join(code, told)
    if components is None:
        return decoder(joined).float()
    picture = components.decode(code, told)
    return picture + (decoder(joined, picture) if isinstance(decoder, RefiningDecoder) else decoder(joined)).float()


def image_of(raw: Tensor, components: Components | None) -> Tensor:
    """A raw image, bounded: by tanh, or cut off at -1 and 1 where it is one of components and what was added to them."""
    return torch.tanh(raw) if components is None else raw.clamp(-1, 1)


def learned_image(raw: Tensor, components: Components | None) -> Tensor:
    """A raw image as a squared error compares it: not cut off where there are components, because there is no slope beyond."""
    return torch.tanh(raw) if components is None else raw


def warm_up_for(components: Components | None) -> int:
    """`Player.warm_up` of encoder and decoder: Adam's first steps are as long as all others, and would spoil a start at components."""
    return 0 if components is None else 100


def code_size(autoencoder: Encodes, spec: DataSpec) -> int:
    """How many numbers an auto-encoder's code has."""
    with torch.no_grad():
        return autoencoder.encode(torch.zeros(1, *spec.shape)).shape[1]
