"""BiGAN: a GAN that learns the way back as well, because its discriminator judges pairs of an image and a code.

Papers: Donahue et al., Adversarial Feature Learning, 2017 (arXiv 1605.09782), and its code (jeffdonahue/bigan); Dumoulin et al.,
Adversarially Learned Inference, 2017 (arXiv 1606.00704), the same game. An encoder E gives each image a code, a generator G makes an image
of each code, and a discriminator tells (x, E(x)) from (G(z), z):

    D:     -log D(x, E(x)) - log(1 - D(G(z), z))
    E, G:  -log D(G(z), z) - log(1 - D(x, E(x)))

Both pairs can only be alike where E and G are each other's inverse, so images come back without anyone comparing pixels. How near they come
is another matter: a pair that is nearly right is told from a right one by little, and digits return as digits, not as themselves.

The networks are about those of the paper's permutation-invariant MNIST, two hidden layers each; the discriminator sees the code beside its
first hidden layer, so the second one compares the two. What differs: the noise is normal instead of uniform, the generator sees it once
(theirs in both hidden layers), encoder and generator have batch norm with gain and bias in both hidden layers and the discriminator none
(theirs, without gain and bias, in the generator's both and the others' second), and weights start as torch's. `network=conv` takes DCGAN's
networks instead, the discriminator's for what it sees of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, real_loss
from models.nets.conv import ConvDecoder, ConvDiscriminator, ConvEncoder
from models.nets.mlp import MlpDecoder, MlpEncoder, leaky, mlp


class BiGAN(LatentModel):
    @dataclass(frozen=True)
    class Config:
        network: Literal["mlp", "conv"] = "mlp"  # fully connected, as in the paper's table on MNIST; or convolutions, sized from the data
        latent: Annotated[int, Range(1, 8192)] = 50  # dimensions of the noise and of the code
        hidden: Annotated[tuple[int, ...], Range(1, 8192)] = (1024, 1024)  # hidden layers of mlp, and of what sees image and code
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128, 256)  # channels of conv; small images use the first few
        lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of all
        weight_decay: Annotated[float, Range(0, 1)] = 0.0  # of all; 2.5e-5 in the paper
        schedule: Literal["constant", "linear", "cosine", "exponential"] = "constant"  # of the learning rates

    config: Config
    averaged = ("encoder", "generator")
    presets = {
        "quick": Preset(600_000, options={"hidden": (512, 512)}, about="a look within a few minutes"),
        "default": Preset(6_000_000),
        "paper": Preset(
            24_000_000, options={"weight_decay": 2.5e-5}, about="MNIST, 400 epochs; the rate stays, theirs falls in the second half"
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        c = config
        if c.network == "mlp":
            self.encoder: nn.Module = MlpEncoder(spec, c.hidden, c.latent, leaky, "batch")
            self.generator: nn.Module = MlpDecoder(spec, c.hidden, c.latent, nn.ReLU, "batch")
        else:
            self.encoder = ConvEncoder(spec, c.widths, c.latent)
            self.generator = ConvDecoder(spec, c.widths, c.latent)
        self.discriminator = PairDiscriminator(c, spec)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        teams = {"discriminator": (self.discriminator,), "encoder": (self.encoder,), "generator": (self.generator,)}
        return {
            name: Player(modules, c.lr, betas=(0.5, 0.999), weight_decay=c.weight_decay, schedule=c.schedule)
            for name, modules in teams.items()
        }

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("adversarial", self.turns, players=tuple(self.players())),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        noise = self.noise(batch)
        code, fake = self.encode(batch.image), self.decode(noise)
        on_real, on_fake = self.discriminator(batch.image, code.detach()), self.discriminator(fake.detach(), noise)
        yield Turn({"discriminator": real_loss(on_real) + fake_loss(on_fake)}, {"right": judged_right(on_real, on_fake)})
        deceived = real_loss(self.discriminator(fake, noise)) + fake_loss(self.discriminator(batch.image, code))
        yield Turn({"encoder": deceived, "generator": deceived})

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, latent)."""
        code: Tensor = self.encoder(image)
        return code.float()

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.generator(latent)).float()

    def sample(self, noise: Tensor) -> Tensor:
        """Noise is a code: (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(noise)


class PairDiscriminator(nn.Module):
    """An image and a code -> a logit, large where the code was made of the image: (B, C, H, W) and (B, latent) -> (B, 1)."""

    def __init__(self, config: BiGAN.Config, spec: DataSpec) -> None:
        super().__init__()
        first, *others = config.hidden
        if config.network == "mlp":
            self.look: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, first))
        else:
            self.look = ConvDiscriminator(spec, config.widths, outputs=first)
        self.activation = leaky()
        self.compare = mlp([first + config.latent, *others, 1], leaky)

    def forward(self, image: Tensor, code: Tensor) -> Tensor:
        return self.compare(torch.cat([self.activation(self.look(image)), code], 1))
