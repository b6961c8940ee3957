"""The CelebA nets of Wasserstein auto-encoders (Tolstikhin et al. 2018, table in appendix F; tolstikhin/wae: configs.py, models.py).

Five by five kernels; the decoder starts at an eighth of the image's size and its last layer keeps the size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.base import DataSpec
from models.nets.conv import ToMaps, ToVector, start_small


class WaeEncoder(nn.Module):
    """(B, C, H, W) -> (B, latent): convolutions of stride 2 with batch norm and ReLU, then a linear head."""

    def __init__(self, spec: DataSpec, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        height, width = spec.size
        for before, after in zip([spec.channels, *widths[:-1]], widths, strict=True):
            layers += [nn.Conv2d(before, after, 5, 2, 2), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            height, width = -(-height // 2), -(-width // 2)
        self.features = widths[-1] * height * width
        self.trunk = nn.Sequential(*layers, ToVector())
        self.head = nn.Linear(self.features, latent)
        self.apply(start_small)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(image))


class WaeDecoder(nn.Module):
    """(B, latent) -> (B, C, H, W), unbounded (the model applies tanh)."""

    def __init__(self, spec: DataSpec, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        channels = [*reversed(widths)]
        sizes = [spec.size]
        for _ in widths[1:]:
            sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))  # rounded up, as the encoder does
        height, width = sizes[0]
        layers: list[nn.Module] = [
            nn.Linear(latent, channels[0] * height * width),
            ToMaps(channels[0], height, width),
            nn.ReLU(inplace=True),
        ]
        for n in range(len(widths) - 1):
            even = (1 - sizes[n + 1][0] % 2, 1 - sizes[n + 1][1] % 2)
            layers += [
                nn.ConvTranspose2d(channels[n], channels[n + 1], 5, 2, 2, output_padding=even),
                nn.BatchNorm2d(channels[n + 1]),
                nn.ReLU(inplace=True),
            ]
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], spec.channels, 5, 1, 2))
        self.apply(start_small)

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent)
