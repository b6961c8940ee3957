"""cGML: several answers to one question, found by a network that has learned to explore the latent space.

Paper: Ramasinghe et al., Conditional Generative Modeling via Learning the Latent Space, ICLR 2021 (arXiv 2010.03132). Neither a VAE nor a
GAN. An encoder H looks at what is shown, h = H(x); a decoder G(h, z) answers; z lies on the unit sphere. While it learns, every z walks
down the answer's error, z <- z - rate * dl(G(h, z), y)/dz, and a network Z learns these steps. Then H and G learn from the place that z has
reached. Without the answer Z walks alone, and different starts end at different answers. l is the L1 distance (the squared one for the
paper's toy). Two terms ask Z and G not to jump where h and z change a little.

An absolute error paints what it does not know grey, and nothing says what becomes of a z that suits the question badly. So a discriminator
of patches (Isola et al. 2017, pix2pix) tells questions with their true answers from those with answers to which Z has come alone, from
other starts, and G learns to make these look real, too. The paper has none: `judge_weight=0`.

What Z learns. The paper's Z is told h and z, and learns where z is next, r', and how far that is, rho; in use (`walk=timeless`)

    z <- z + rho(z, h) (r'(z, h) - z) / ||r'(z, h) - z||.

Where a question has many answers, the steps that meet at one z lead apart, what is left of them points to the middle of all, and a full
step that way brings every start to the same answer. So by default (`walk=timed`) Z is told the time as well and learns the mean step. Then
the starts that walk alone are spread, at every time, as those that saw their answers were (the continuity equation, as in flow matching:
Lipman et al. 2023), as far as steps are short. For that their length has a limit, too, which falls along a line, so that z comes to rest.

Further differences from the sources: the error is a mean over an image's wanted pixels and its slope is taken for every image, so the rate
depends neither on the batch nor on the size of a hole. z comes back to the sphere after every step; rho is the length of the step in the
norm by which its direction is divided. Nothing in H and G looks at other images of the batch, so z's walk teaches them no statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.base import Batch, Clock, DataSpec, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, real_loss, slope
from models.nets.explorer import Explorer
from models.nets.patch import judge_for
from models.nets.questions import Answering, Question
from models.nets.unet import Features, networks_for


class CGML(Answering):
    @dataclass(frozen=True)
    class Config:
        task: Literal["inpaint", "colourise", "upscale", "pairs"] = "inpaint"  # what is asked: see docs/answers.md
        mask: Literal["any", "box", "center", "half", "random", "stroke"] = "any"  # the holes that inpaint learns to fill
        factor: Annotated[int, Range(2, 64)] = 4  # how much smaller upscale's images are
        network: Literal["unet", "mlp"] = "unet"  # unet (sized from the data), mlp (pictures of a few pixels)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128, 256)  # channels; small images use the first few
        hidden: Annotated[tuple[int, ...], Range(1, 8192)] = (256, 256)  # hidden layers of the network that explores
        latent: Annotated[int, Range(1, 8192)] = 4  # dimensions of z
        walk: Literal["timed", "timeless"] = "timed"  # Z is told the time and learns z's mean step; or a direction and a length
        iterations: Annotated[int, Range(1, 1000)] = 10  # steps of z, in training and by default in use
        rate: Annotated[float, Range(0, 1e6)] = 30.0  # of z's steps down the error
        longest: Annotated[float, Range(1e-3, 1e6)] = 0.3  # that z's first step may be, of a radius of 1; later ones less and less
        error: Literal["absolute", "squared"] = "absolute"  # of an answer
        smooth: Annotated[float, Range(0, 1e6)] = 0.1  # weight of the terms against jumps of G and Z
        shake: Annotated[float, Range(0, 10)] = 0.03  # deviation of the small changes that these terms try
        judge_weight: Annotated[float, Range(0, 1e6)] = 0.01  # of a discriminator's verdict against the error; 0: none
        judge_widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128)  # channels of that discriminator
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    averaged = ("encoder", "decoder", "explorer")
    before = {"judge_weight": 0.0}
    presets = {
        "quick": Preset(50_000, batch=16, about="a first look"),
        "default": Preset(400_000, batch=16),
        "paper": Preset(
            600_000,
            batch=20,
            options={
                "widths": (64, 128, 256, 512),
                "hidden": (512, 512),
                "latent": 10,
                "iterations": 20,
                "walk": "timeless",
                "rate": 1.0,
                "longest": 1e6,
                "judge_weight": 0.0,
                "lr": 1e-4,
                "schedule": "constant",
            },
            about="batch, z, its steps and the learning rate of the authors' scripts; the networks are lgm's",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec, noise=config.latent)
        out = self.asking.wanted.shape[0]
        self.encoder, self.decoder = networks_for(config.network, self.asking.seen, config.widths, config.latent, out)
        times = config.iterations if config.walk == "timed" else 0
        self.explorer = Explorer(self.encoder.features, config.latent, config.hidden, times)
        if config.judge_weight:
            self.discriminator = judge_for(config.network, self.asking.answered, config.judge_widths)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        players = {
            "explorer": Player((self.explorer,), lr=c.lr, schedule=c.schedule),
            "answers": Player((self.encoder, self.decoder), lr=c.lr, schedule=c.schedule),
        }
        if c.judge_weight:
            players["discriminator"] = Player((self.discriminator,), lr=c.lr / 2, betas=(0.5, 0.999), schedule=c.schedule)
        return players

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("answers and their latent space", self.turns, players=tuple(self.players())),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        question = self.asking.of(batch)
        features = self.encoder(question.shown)  # once: neither H nor G moves while z does
        known = features.detach()

        walk = self.walked(question, known, normalize(torch.randn(len(batch), c.latent, device=batch.device)))
        near = known.shaken(c.shake)
        for time, (here, there) in enumerate(pairwise(walk)):
            yield Turn({"explorer": self.explorer_loss(known.gist, near.gist, here, there, time)})

        answer = self.decoder(features, walk[-1])
        error = self._error(question, answer).mean()
        shaken = self.decoder(features.shaken(c.shake), walk[-1] + c.shake * torch.randn_like(walk[-1]))
        jump = self._apart(shaken, answer.detach(), question)
        loss, logs = error + c.smooth * jump, {"error": error, "way of z": (walk[-1] - walk[0]).norm(dim=1).mean()}
        if c.judge_weight:
            with torch.no_grad():
                found = self.explored(known, torch.randn_like(walk[0]))
            guess = self.decoder(features, found)
            on_real = self.discriminator(question.with_answer(question.wanted))
            on_fake = self.discriminator(question.with_answer(guess.detach()))
            yield Turn({"discriminator": (real_loss(on_real) + fake_loss(on_fake)) / 2}, {"right": judged_right(on_real, on_fake)})
            loss = loss + c.judge_weight * real_loss(self.discriminator(question.with_answer(guess)))
        yield Turn({"answers": loss}, logs)

    def walked(self, question: Question, known: Features, start: Tensor) -> list[Tensor]:
        """Where z goes with the answer in sight: the start (B, latent), and its place after every step."""
        walk = [start]
        for time in range(self.config.iterations):
            down = slope(lambda z: self._error(question, self.decoder(known, z)), walk[-1])
            walk.append(normalize(walk[-1] - self.stride(self.config.rate * down, time)))
        return walk

    def stride(self, step: Tensor, time: int) -> Tensor:
        """A step (B, latent), cut to the length that one may have at that time."""
        longest = self.config.longest * (1 - time / self.config.iterations)
        return step * (longest / step.norm(dim=1, keepdim=True).clamp_min(1e-8)).clamp_max(1)

    def explorer_loss(self, gist: Tensor, near: Tensor, here: Tensor, there: Tensor, time: int) -> Tensor:
        """What Z pays for a step from `here` to `there`, (B, latent) both: for the place (and how far it is), and for jumps of the place
        where it is shown another gist, `near` its own."""
        c = self.config
        following, far = self.explorer(gist, here, time)
        again, _ = self.explorer(near, here + c.shake * torch.randn_like(here), time)
        if far is None:
            return (following - (there - here)).square().mean() + c.smooth * (again - following.detach()).square().mean()
        length = (there - here).norm(dim=1, keepdim=True)
        return self._mean(following - there) + c.smooth * self._mean(again - following.detach()) + self._mean(far - length)

    def _error(self, question: Question, answer: Tensor) -> Tensor:
        return question.error(answer, self.config.error == "squared")

    def _apart(self, answer: Tensor, other: Tensor, question: Question) -> Tensor:
        return Question(question.shown, other.float(), question.hole).error(answer, self.config.error == "squared").mean()

    def _mean(self, differences: Tensor) -> Tensor:
        return differences.square().mean() if self.config.error == "squared" else differences.abs().mean()

    # --- capabilities ---

    def answer(self, shown: Tensor, noise: Tensor, iterations: int | None = None) -> Tensor:
        """(B, K, H, W) and (B, latent), where z starts -> (B, C, H, W), after so many steps of Z."""
        features = self.encoder(shown)
        answer: Tensor = self.decoder(features, self.explored(features, noise, iterations))
        return answer

    def translate(self, image: Tensor, noise: Tensor, iterations: int | None = None) -> Tensor:
        """As `Answering.translate`, after so many steps of Z."""
        return self.answer(self.asking.shown(image), noise, iterations).float().clamp(-1, 1)

    def complete(self, image: Tensor, mask: Tensor, noise: Tensor, iterations: int | None = None) -> Tensor:
        """As `Answering.complete`, after so many steps of Z."""
        question = self.asking.with_hole(image, mask)
        return question.whole(self.answer(question.shown, noise, iterations))

    def explored(self, features: Features, noise: Tensor, iterations: int | None = None) -> Tensor:
        """Where Z brings z, alone: (B, latent) on the sphere."""
        c, z = self.config, normalize(noise.float())
        for time in range(c.iterations if iterations is None else iterations):
            following, far = self.explorer(features.gist, z, min(time, c.iterations - 1))
            z = normalize(z + (following if far is None else far * normalize(following - z, eps=1e-8)))
        return z
