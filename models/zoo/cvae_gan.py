"""CVAE-GAN: a conditional VAE whose decoder is also a generator, with a discriminator and a classifier to learn from; four players.

Paper: Bao et al., CVAE-GAN: Fine-Grained Image Generation through Asymmetric Training, 2017. Asymmetric: the discriminator plays the
ordinary game, but the generator never sees -log D. It brings the mean of the discriminator's features on its samples to their mean on real
images, and in every class the mean of the classifier's features likewise, so its gradient does not vanish where the discriminator
is sure. `game=ordinary` pays it -log D instead, for comparison. For reconstructions, pixels and both networks' features are compared
pairwise.

All four losses are taken on one graph, before anyone moves. What real images have for means and class centres are moving averages,
because a batch holds few images of a class. The generator is held to them by its batch's own: moving averages of its samples would tell it
what it did some batches ago, and forgive a broken image for the others' sake. Features are those of the last hidden layer, in the unit of
the pixels (as if features of real images and fakes varied as much as images do): their own size depends on the network and grows while it
learns, and no weight would suit two networks.

The discriminator's batch norms see real images and fakes each by itself, as in any GAN. The classifier's know real images only, and
fakes are shown to it as it is in use: normalised by their own batch, they would have the right mean in every channel whatever they show,
and there would be little left to match. The generator's see codes and noise in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, kl_to_standard_normal, real_loss, squared_error
from models.nets.batch_norm import as_in_use
from models.nets.conditions import as_vector, condition_size, join
from models.nets.conv import ConvDecoder, ConvDiscriminator, ConvEncoder
from models.nets.moving import MovingMeans
from models.nets.posterior import conditional_posterior, drawn
from models.nets.units import half_square, spread


class CVAEGAN(LatentModel):
    @dataclass(frozen=True)
    class Config:
        condition: Literal["label", "identity"] = "label"  # what the images are asked to show
        latent: Annotated[int, Range(1, 8192)] = 64  # dimensions of the code and of the noise
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        features: Annotated[int, Range(1, 8192)] = 256  # of the discriminator's and the classifier's last hidden layer
        kl_weight: Annotated[float, Range(0, 1e6)] = 12.0  # lambda 1: less makes sharper reconstructions and worse samples
        reconstruction_weight: Annotated[float, Range(0, 1e6)] = 1.0  # lambda 2: pixels and features, pairwise
        mean_weight: Annotated[float, Range(0, 1e6)] = 1.0  # lambda 3: the mean of the discriminator's features
        class_weight: Annotated[float, Range(0, 1e6)] = 1.0  # lambda 4: the class centres of the classifier's features
        game: Literal["means", "ordinary"] = "means"  # what samples are paid for: matching means, or -log D with weight 1
        decay: Annotated[float, Range(0, 1)] = 0.98  # of the moving averages of real images' means and centres, a batch
        discriminator_steps: Annotated[int, Range(1, 100)] = 1  # its moves for each of the others'
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate of all players
        schedule: Literal["constant", "linear", "cosine", "exponential", "steps"] = "cosine"  # of the learning rates

    config: Config
    averaged = ("encoder", "heads", "generator")
    presets = {
        "quick": Preset(150_000, options={"widths": (32, 64, 128, 256)}, about="a look within a few minutes"),
        "default": Preset(450_000, options={"widths": (32, 64, 128, 256)}, about="half an hour on two cores"),
        "paper": Preset(
            4_000_000,
            options={"latent": 256, "kl_weight": 3.0, "lr": 2e-4, "schedule": "constant"},
            about="the paper's code size; its 1e-3 for means and centres goes with features of their own size",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.needs = frozenset({"image", config.condition})
        self.target = config.condition  # of `classify`
        classes = condition_size(spec, config.condition)
        self.encoder = ConvEncoder(spec, config.widths, 4 * config.latent)
        self.heads = nn.Linear(4 * config.latent + classes, 2 * config.latent)  # the posterior's mean and log-variance
        self.generator = ConvDecoder(spec, config.widths, config.latent + classes)
        self.discriminator = ConvDiscriminator(spec, config.widths, outputs=config.features)
        self.logit = nn.Linear(config.features, 1)
        self.classifier = ConvDiscriminator(spec, config.widths, outputs=config.features)
        self.class_logits = nn.Linear(config.features, classes)
        self.real_mean = MovingMeans(1, config.features, config.decay)  # of the discriminator's features
        self.real_centres = MovingMeans(classes, config.features, config.decay)  # of the classifier's

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules: dict[str, tuple[nn.Module, ...]] = {
            "classifier": (self.classifier, self.class_logits),
            "discriminator": (self.discriminator, self.logit),
            "generator": (self.generator,),
            "encoder": (self.encoder, self.heads),
        }
        return {name: Player(parts, c.lr, betas=(0.5, 0.999), schedule=c.schedule) for name, parts in modules.items()}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("four players", self.turns, players=("classifier", "discriminator", "generator", "encoder")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        image, label = batch.image, getattr(batch, c.condition)
        shown = as_vector(self.spec, **{c.condition: label})
        for _ in range(c.discriminator_steps - 1):
            fake = torch.tanh(self.generator(join(self.noise(batch), shown))).detach()
            yield Turn({"discriminator": real_loss(self.logit(self.seen(image))) + fake_loss(self.logit(self.seen(fake)))})

        mean, log_variance = self.posterior(image, shown)
        # One batch for both: the generator's batch norms then know the mixture that they will meet in use.
        codes, twice = torch.cat([drawn(mean, log_variance), self.noise(batch)]), torch.cat([shown, shown])
        again, fake = torch.tanh(self.generator(join(codes, twice))).float().chunk(2)

        seen_real, seen_again, seen_fake = self.seen(image), self.seen(again), self.seen(fake)
        on_real, on_again, on_fake = self.logit(seen_real), self.logit(seen_again), self.logit(seen_fake)
        discriminator = real_loss(on_real) + (fake_loss(on_again) + fake_loss(on_fake)) / 2
        logits = self.logits(self.features(image))
        classifier = F.cross_entropy(logits, label)
        with as_in_use(self.classifier):
            named_real, named_again, named_fake = self.features(image).detach(), self.features(again), self.features(fake)

        pixels = 2 * squared_error(again, image).mean()  # half the squared distance of images in [-1, 1]
        # Features count in the unit of the pixels: as if they varied among images as much as these do.
        unit = spread(image)
        seen_unit = unit / spread(torch.cat([seen_real, seen_fake]))
        named_unit = unit / spread(torch.cat([named_real, named_fake]))
        features = seen_unit * half_square(seen_again - seen_real.detach()) + named_unit * half_square(named_again - named_real)
        pairwise = pixels + features
        if c.game == "means":
            mean_of_real = self.real_mean(seen_real.sum(0, keepdim=True), seen_real.new_full((1, 1), len(seen_real)))
            game = c.mean_weight * seen_unit * half_square(seen_fake.mean(0, keepdim=True) - mean_of_real)
        else:
            game = real_loss(on_fake)
        centres = named_unit * self.centre_distance(named_real, named_fake, label)
        kl = kl_to_standard_normal(mean, log_variance).mean()
        yield Turn(
            {
                "classifier": classifier,
                "discriminator": discriminator,
                "generator": c.reconstruction_weight * pairwise + game + c.class_weight * centres,
                "encoder": c.kl_weight * kl + c.reconstruction_weight * pairwise,
            },
            {
                "KL": kl,
                "pixels": pixels,
                "features": features,
                "centres": centres,
                "right": judged_right(on_real, on_fake),
                "real images named right": (logits.argmax(1) == label).float().mean(),
            },
        )

    def posterior(self, image: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, (B, latent) each: images (B, C, H, W) and what they show (B, K)."""
        return conditional_posterior(self.encoder, self.heads, image, shown)

    def seen(self, image: Tensor) -> Tensor:
        """The discriminator's last hidden layer: (B, C, H, W) -> (B, features)."""
        return F.leaky_relu(self.discriminator(image).float(), 0.2)

    def centre_distance(self, real: Tensor, fake: Tensor, label: Tensor) -> Tensor:
        """Half the squared distance of real and fake class centres, summed over the classes of the batch: (B, F) twice, (B,) -> scalar."""
        classes = len(self.real_centres.counts)

        def sums(features: Tensor) -> Tensor:
            return features.new_zeros(classes, features.shape[1]).index_add(0, label, features)

        count = sums(real.new_ones(len(label), 1))
        apart = sums(fake) / count.clamp_min(1) - self.real_centres(sums(real), count)
        return (apart.square() * (count > 0)).sum() / 2

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def encode(self, image: Tensor, label: Tensor | None = None, identity: Tensor | None = None) -> Tensor:
        """The posterior's mean: (B, C, H, W) and what the images show -> (B, latent)."""
        return self.posterior(image, as_vector(self.spec, label, identity))[0]

    def decode(self, latent: Tensor, label: Tensor | None = None, identity: Tensor | None = None) -> Tensor:
        """(B, latent) and what to show -> (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.generator(join(latent, as_vector(self.spec, label, identity))))

    def sample(self, noise: Tensor, label: Tensor | None = None, identity: Tensor | None = None) -> Tensor:
        """The prior is N(0, I) for all classes: (B, latent) and what to show -> (B, C, H, W) in [-1, 1]."""
        return self.decode(noise, label, identity)

    def features(self, image: Tensor) -> Tensor:
        """The classifier's last hidden layer: (B, C, H, W) -> (B, features)."""
        return F.leaky_relu(self.classifier(image).float(), 0.2)

    def logits(self, features: Tensor) -> Tensor:
        """(B, features) -> (B, K), one a class or identity."""
        return self.class_logits(features).float()

    def classify(self, image: Tensor) -> Tensor:
        """What an image shows: (B, C, H, W) -> logits (B, K)."""
        return self.logits(self.features(image))
