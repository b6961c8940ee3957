"""IP-GAN: whose face of one image, and everything else of another, people included that no training image shows; five networks.

Paper: Bao et al., Towards Open-Set Identity Preserving Face Synthesis, 2018 (arXiv 1803.11182). I looks at the subject x^s and says who it
is; A looks at x^a and says all else, as a Gaussian; G makes x' of both. C classifies people, D tells real images from made ones, and their
features say whether x' is who it should be, and looks as it should:

    I:  -log P(c | x^s)                          C:  -log P(c | x^s)                     D:  -log D(x^a) - log(1 - D(x'))
    A:  KL(N(mu, sigma) || N(0, I)) + L_GR       G:  L_GR + L_GC + L_GD
    L_GC = |f_C(x') - f_C(x^s)|^2 / 2,   L_GD = |f_D(x') - f_D(x^a)|^2 / 2,   L_GR = |x' - x^a|^2 / 2, times lambda where x^s is not x^a

x^s = x^a and two independent draws take turns: each is half of every batch, so that G's batch norms know both. Unlike CVAE-GAN's, all terms
compare pairs, no means. Where there are unlabelled images (a source of their own, without identities), every other step takes these: as
x^s = x^a, and as x^a of people who are known.

Differences: the vector that says who it is has the length of a normal of its size, and the logits of I are cosines, so that unseen people's
vectors lie where those of seen ones do. Features count in the unit of the pixels, as if they varied among images as much as these do: their
own size depends on the network and grows while it learns. C sees made images as it is in use, with the batch-norm statistics of real ones.
The KL term weighs so little that A's codes are far from N(0, I): all else is drawn from the Gaussian fitted to them (`draws`).
C's features show more than the person, beards, say, and x' is not to share these with x^s: what x' is compared with are the features of
x^a, moved by the way from the mean of its person's to that of x^s's (`target`). They are f_C(x^s) where x^s = x^a.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Classifies, Clock, DataSpec, LatentModel, Part, Player, Preset, Range, Stage, Turn
from models.errors import UserError
from models.losses import fake_loss, judged_right, kl_to_standard_normal, real_loss, squared_error
from models.nets.batch_norm import as_in_use
from models.nets.conditions import condition_size, shares
from models.nets.conv import ConvDecoder, ConvDiscriminator, ConvEncoder
from models.nets.moving import MovingGaussian, MovingMeans
from models.nets.posterior import bounded, drawn
from models.nets.units import half_square, spread

CODES_DECAY = 0.995  # of the moving Gaussian of the codes of all else: it remembers the last 200 batches
SHARPNESS = 16.0  # of I's logits: its largest cosine is this many nats


class IPGAN(LatentModel):
    @dataclass(frozen=True)
    class Config:
        condition: Literal["auto", "identity", "label"] = "auto"  # what tells people apart; auto: identities, or classes without them
        identity: Annotated[int, Range(1, 8192)] = 64  # numbers that say who it is, where I is trained here
        latent: Annotated[int, Range(1, 8192)] = 64  # numbers that say all else
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128, 256)  # channels; small images use the first few
        features: Annotated[int, Range(1, 8192)] = 256  # of the discriminator's and the classifier's last hidden layer
        other_weight: Annotated[float, Range(0, 1e6)] = 0.01  # lambda: of the pixels where subject and attributes are two images
        kl_weight: Annotated[float, Range(0, 1e6)] = 0.03  # of what the attributes' code may say
        identity_weight: Annotated[float, Range(0, 1e6)] = 1.0  # of C's features
        target: Literal["mixture", "subject"] = "mixture"  # C's features of x^a, moved from its person to that of x^s; or those of x^s
        game_weight: Annotated[float, Range(0, 1e6)] = 0.3  # of D's features
        draws: Literal["fitted", "standard"] = "fitted"  # what all else is drawn from: the Gaussian of the images' codes, or N(0, I)
        decay: Annotated[float, Range(0, 1)] = 0.98  # of the moving averages of the people's vectors and features
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate of all players
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rates

    config: Config
    sources = ("data", "other", "unlabelled")
    draws = {"other": "data", "unlabelled": "data"}
    unlabelled = ("unlabelled",)
    takes = {
        "identity": Part((Classifies,), "a classifier of people, whose features say who it is", optional=True, decides=("identity",)),
    }
    before = {"draws": "standard", "target": "subject"}
    layer_groups: Mapping[str, tuple[int, ...]] = {"attributes": (1,), "identity": (0,)}
    presets = {
        "quick": Preset(100_000, batch=16, about="a first look"),
        "default": Preset(600_000, batch=16),
        "paper": Preset(
            20_000_000,
            batch=64,
            options={
                "widths": (64, 128, 256, 512),
                "identity": 512,
                "latent": 256,
                "features": 512,
                "other_weight": 0.1,
                "kl_weight": 1.0,
                "target": "subject",
                "draws": "standard",
                "lr": 2e-4,
                "schedule": "constant",
            },
            about="wide nets, for 128x128; the paper's are VGGs, its batch and learning rate are not known",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec, parts: Mapping[str, LatentModel] | None = None) -> None:
        super().__init__(config, spec, parts)
        c = config
        condition = self.condition = c.condition if c.condition != "auto" else "identity" if "identity" in spec.fields else "label"
        people = max(condition_size(spec, condition), 1)  # none: the data lack what the model needs, as the caller will say
        for name in ("other", "unlabelled"):
            if spec[name].shape != spec.shape:
                what = f"the images of {name} are {spec[name].shape}, those of the data {spec.shape}"
                raise UserError(what, f"--data {name}=", "give --size and --channels")
        self.extra = condition not in spec["unlabelled"].fields
        self.moves = config.target == "mixture" and spec["other"].fields == spec.fields  # others' numbers would be other people's
        further = (("other.image", True), (f"other.{condition}", self.moves), ("unlabelled.image", self.extra))
        self.needs = frozenset({"image", condition, *(key for key, needed in further if needed)})
        self.averaged = ("attributes", "generator")
        if "identity" in self.parts:
            with torch.no_grad():
                self.size = self.part.features(torch.zeros(1, *spec.shape)).shape[1]
        else:
            self.size, self.averaged = c.identity, (*self.averaged, "recogniser")
            self.recogniser = ConvDiscriminator(spec, c.widths, outputs=c.identity)
            self.people = nn.Linear(c.identity, people, bias=False)
        self.attributes = ConvEncoder(spec, c.widths, 2 * c.latent)
        self.generator = ConvDecoder(spec, c.widths, self.size + c.latent)
        self.classifier = ConvDiscriminator(spec, c.widths, outputs=c.features)
        self.class_logits = nn.Linear(c.features, people)
        self.discriminator = ConvDiscriminator(spec, c.widths, outputs=c.features)
        self.logit = nn.Linear(c.features, 1)
        self.centres = MovingMeans(people, self.size, c.decay)  # of the vectors of each person's images
        self.faces = MovingMeans(people, c.features, c.decay) if self.moves else None  # of C's features of each person's images
        self.register_buffer("somebody", torch.randn(people, self.size))  # for people whom no batch has shown yet
        self.codes = MovingGaussian(c.latent, CODES_DECAY) if c.draws == "fitted" else None  # all else that images show

    @property
    def part(self) -> Any:
        return self.parts["identity"]

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules: dict[str, tuple[nn.Module, ...]] = {} if "identity" in self.parts else {"recogniser": (self.recogniser, self.people)}
        modules |= {
            "classifier": (self.classifier, self.class_logits),
            "discriminator": (self.discriminator, self.logit),
            "generator": (self.generator,),
            "attributes": (self.attributes,),
        }
        return {name: Player(parts, c.lr, betas=(0.5, 0.999), schedule=c.schedule) for name, parts in modules.items()}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("who and how", self.turns, players=tuple(self.players())),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c, half = self.config, len(batch) // 2
        extra = self.extra and clock.step % 2 == 1
        strangers = batch["unlabelled"].image if extra else batch.image
        subject = torch.cat([strangers[:half], batch.image[half:]])
        look = torch.cat([subject[:half], (strangers if extra else batch["other"].image)[half:]])
        known = slice(half if extra else 0, None)  # the items of whose subject it is said who that is
        label = getattr(batch, self.condition)[known]

        vector, losses = self.vector(subject), {}
        if "identity" not in self.parts:
            cosines = F.linear(vector[known] / sqrt(self.size), F.normalize(self.people.weight))
            losses["recogniser"] = F.cross_entropy(SHARPNESS * cosines.float(), label)
        follow(self.centres, vector[known], label)
        mean, log_variance = self.posterior(look)
        code = drawn(mean, log_variance)
        if self.codes is not None:
            self.codes.follow(code)
        made = torch.tanh(self.generator(torch.cat([vector.detach(), code], 1))).float()

        losses["classifier"] = F.cross_entropy(self.logits(self.named(subject[known])), label)
        seen_real, seen_made = self.seen(look), self.seen(made)
        on_real, on_made = self.logit(seen_real), self.logit(seen_made)
        losses["discriminator"] = real_loss(on_real) + fake_loss(on_made)

        with as_in_use(self.classifier):
            named_real, named_made = self.named(subject).detach(), self.named(made)
            wanted = named_real
            if self.faces is not None:
                follow(self.faces, named_real[known], label)
                if not extra:
                    person = getattr(batch["other"], self.condition)[half:]
                    wanted = torch.cat([named_real[:half], self.moved(look[half:], person, label[half:], named_real[half:])])
        same = torch.arange(len(subject), device=batch.device) < half
        # Half the squared distance of images in [-1, 1], and features in that unit.
        pixels = (2 * squared_error(made, look) * torch.where(same, 1.0, c.other_weight)).mean()
        unit = spread(look)
        who = unit / spread(torch.cat([named_real, named_made])) * half_square(named_made - wanted)
        game = unit / spread(torch.cat([seen_real, seen_made])) * half_square(seen_made - seen_real.detach())
        kl = kl_to_standard_normal(mean, log_variance).mean()
        losses["generator"] = pixels + c.identity_weight * who + c.game_weight * game
        losses["attributes"] = c.kl_weight * kl + pixels
        logs = {"pixels": pixels, "who": who, "game": game, "KL": kl, "right": judged_right(on_real, on_made)}
        yield Turn(losses, logs)

    @torch.no_grad()
    def moved(self, image: Tensor, person: Tensor, to: Tensor, otherwise: Tensor) -> Tensor:
        """C's features of images, moved from their own people's to others: (B, C, H, W), numbers (B,) twice -> (B, features).

        Those of `otherwise` for people whom no batch has shown yet.
        """
        assert self.faces is not None
        means = self.faces.means
        return torch.where(self.faces.counts[person] > 0, self.named(image) + means[to] - means[person], otherwise)

    def vector(self, image: Tensor) -> Tensor:
        """Who an image shows: (B, C, H, W) -> (B, size), as long as a normal of that size."""
        found = self.part.features(image) if "identity" in self.parts else self.recogniser(image)
        return sqrt(self.size) * F.normalize(found.float())

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code of all else: (B, C, H, W) -> (B, latent) twice, float32."""
        mean, log_variance = self.attributes(image).float().chunk(2, 1)
        return mean, bounded(log_variance)

    def seen(self, image: Tensor) -> Tensor:
        """The discriminator's last hidden layer: (B, C, H, W) -> (B, features)."""
        return F.leaky_relu(self.discriminator(image).float(), 0.2)

    def named(self, image: Tensor) -> Tensor:
        """The classifier's last hidden layer: (B, C, H, W) -> (B, features)."""
        return F.leaky_relu(self.classifier(image).float(), 0.2)

    def logits(self, features: Tensor) -> Tensor:
        """(B, features) -> (B, people)."""
        return self.class_logits(features).float()

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def encode(self, image: Tensor) -> Tensor:
        """Who it is, and the mean of all else: (B, C, H, W) -> (B, size + latent)."""
        return torch.cat([self.vector(image), self.posterior(image)[0]], 1)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, size + latent) -> (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.generator(latent)).float()

    def mix(self, latent: Tensor, other: Tensor, layers: Sequence[int]) -> Tensor:
        """Codes (B, size + latent) twice -> (B, C, H, W); 0 among `layers`: `other` says who it is, 1: it says all else."""
        who, how = (part.split([self.size, self.config.latent], 1) for part in (latent, other))
        return self.decode(torch.cat([(how if place in layers else who)[place] for place in (0, 1)], 1))

    def sample(self, noise: Tensor, label: Tensor | None = None, identity: Tensor | None = None) -> Tensor:
        """Somebody of the training images, all else drawn: noise (B, latent), and who, (B,) or shares (B, K) -> (B, C, H, W)."""
        told = label if label is not None else identity
        if told is None:
            raise ValueError("it has to be told whom to show")
        counts = self.centres.counts
        centres = torch.where(counts > 0, self.centres.means, self.get_buffer("somebody"))
        vector = sqrt(self.size) * F.normalize(shares(told, len(counts)) @ F.normalize(centres))
        return self.decode(torch.cat([vector, self.all_else(noise)], 1))

    def resemble(self, image: Tensor, noise: Tensor) -> Tensor:
        """Who an image shows, all else drawn: (B, C, H, W) and noise (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(torch.cat([self.vector(image), self.all_else(noise)], 1))

    def all_else(self, noise: Tensor) -> Tensor:
        """The codes that noise from N(0, I) stands for: (B, latent) -> (B, latent)."""
        return noise if self.codes is None else self.codes.draw(noise)


@torch.no_grad()
def follow(means: MovingMeans, rows: Tensor, label: Tensor) -> None:
    """Let the people's means follow a batch: rows (B, D) of people (B,)."""
    told = shares(label, len(means.counts))
    means(told.T @ rows.float(), told.sum(0).unsqueeze(1))
