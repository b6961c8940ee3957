"""AEGAN: a plain auto-encoder, and a GAN that learns to sample its codes.

Source: a talk on latent spaces in generative models, no paper is known. A KL term blurs a VAE's images; AEGAN drops it. Stage 1
trains an auto-encoder on the squared error alone. In stage 2 it is frozen: G1 maps N(0, I) to codes, D1 tells them from Enc(x), and D2
(when `image_weight` is above 0) tells images decoded from them from real ones, so that G1 minimises -log D1 - image_weight * log D2.

Codes are encoded once, whitened by their mean and covariance over the data, and cached. G1 is z + net(z) with a net that starts small, so
the latent GAN starts as the Gaussian fitted to the codes. A plain net has to find the covariance first, and on codes that are not far from
a Gaussian its discriminator gives up before that (docs/results.md). `prior=flow` carries noise to codes along a learned velocity field
instead (flow matching), and is exaggerated until its draws are as wide as the codes (`guidance`); `prior=gaussian` stops at that Gaussian,
`prior=diagonal` at one without correlations: the baselines to beat.

A squared error alone blurs. In a last stage, `sharpen`, the encoder and the prior stay as they are, and a further discriminator, which sees
images decoded from draws of the prior and from codes of the data beside real ones, moves the decoder, together with the squared error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, Encodes, LatentModel, Part, Player, Preset, Range, Stage, Turn, Whole
from models.errors import UserError
from models.losses import fake_loss, judged_right, one_centred_penalty, r1_penalty, real_loss, squared_error
from models.nets.augment import differentiable, mirrored, mirrors
from models.nets.autoencoder import code_of, code_size, decoder_for, encoder_for, image_of, learned_image, raw_image, warm_up_for
from models.nets.components import Components
from models.nets.conv import ConvDiscriminator
from models.nets.flow import Velocity, carried, flow_loss, guidance_for
from models.nets.mlp import ResidualMlp, leaky, mlp
from models.nets.whitening import unwhiten, whiten

DRAWN = 2**13  # codes of the prior that the decoder is sharpened on: through a flow, each costs as much as a dozen decoded images


class AEGAN(LatentModel):
    code_mean: Tensor
    code_scale: Tensor
    exaggeration: Tensor

    @dataclass(frozen=True)
    class Config:
        network: Literal["conv", "mlp", "wae"] = "conv"  # conv (sized from the data), mlp, wae (5x5 kernels, wide)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        latent: Annotated[int, Range(1, 8192)] = 128  # dimensions of the code and of the noise
        components: bool = True  # encoder and decoder start as principal components and add to them
        augment: Literal["auto", "none", "flip"] = "auto"  # mirror images and codes: auto does so with colour images that are no writing
        lr: Annotated[float, Range(0, 10)] = 1e-3  # the auto-encoder's learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of every learning rate, over its stage
        share: Annotated[float, Range(0.01, 0.99)] = 0.5  # of the run's images that train the auto-encoder
        prior: Literal["gan", "flow", "gaussian", "diagonal"] = "gan"  # how codes are sampled: G1, a flow, or a fitted Gaussian
        steps: Annotated[int, Range(1, 1000)] = 8  # of the flow from noise to a code
        guidance: Annotated[float, Range(0, 100)] = 0.0  # exaggerates the flow's difference from that Gaussian; 1: not, 0: to codes' spread
        flow_width: Annotated[int, Range(1, 8192)] = 512  # of the flow's network
        flow_blocks: Annotated[int, Range(1, 100)] = 4  # of the flow's network
        hidden: Annotated[tuple[int, ...], Range(1, 8192)] = (512, 512, 512)  # hidden layers of G1 and D1
        latent_batch: Annotated[int, Range(1, 100_000)] = 128  # codes a step of the prior's training
        latent_lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate of G1 and D1, or of the flow
        penalty: Literal["r1", "gradient", "none"] = "r1"  # on D1: R1 on real codes, or one-centred between real and fake
        penalty_weight: Annotated[float, Range(0, 1e6)] = 3.0  # of that penalty
        penalty_every: Annotated[int, Range(1, 1000)] = 4  # steps from one penalty to the next, which then counts as many times
        image_weight: Annotated[float, Range(0, 1e6)] = 0.0  # lambda: weight of D2; 0: no D2
        image_real: Literal["reconstruction", "data"] = "reconstruction"  # what D2 takes as real: Dec(Enc(x)) or x
        image_widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels of D2
        image_lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of D2
        sharpen: Annotated[float, Range(0, 0.98)] = 0.0  # of the run's images that sharpen the decoder; 0: none
        sharp_weight: Annotated[float, Range(0, 1e6)] = 0.02  # of the discriminator's verdict against the mean squared error there
        sharp_widths: Annotated[tuple[int, ...], Range(1, 8192)] = (48, 96, 192, 384)  # channels of that discriminator
        sharp_lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of the decoder there; the discriminator's is twice that
        sharp_batch: Annotated[int, Range(2, 100_000)] = 32  # images a step there
        sharp_augment: Literal["none", "shift", "full"] = "shift"  # what that discriminator sees is changed like this

    config: Config
    takes = {
        "base": Part(
            (Encodes,),
            "a trained auto-encoder, instead of the first stage",
            optional=True,
            decides=("network", "widths", "latent", "components", "lr", "share", "sharpen"),
        )
    }
    interpolates = "noise"
    before = {"components": False, "augment": "none", "guidance": 1.0}
    presets = {
        "quick": Preset(
            1_130_000,
            batch=32,
            options={"widths": (32, 64, 128, 256), "prior": "flow", "share": 0.092, "sharpen": 0.063},
            about="faces at 64x64 in a quarter of an hour on two cores",
        ),
        "small": Preset(
            600_000,
            options={"widths": (32, 64, 128, 256), "latent": 64, "lr": 3e-3, "share": 0.2},
            about="digits and other small pictures within a few minutes",
        ),
        "default": Preset(
            2_400_000,
            batch=32,
            options={"prior": "flow", "share": 0.2, "sharpen": 0.3},
            about="sharper ones in a night on two cores",
        ),
        "paper": Preset(
            10_000_000,
            batch=100,
            options={
                "network": "wae",
                "widths": (128, 256, 512, 1024),
                "latent": 64,
                "components": False,
                "augment": "none",
                "lr": 3e-3,
                "image_weight": 1.0,
                "hidden": (1024, 1024, 1024, 1024),
            },
            about="the CelebA nets of Wasserstein auto-encoders, with D2",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec, parts: Mapping[str, LatentModel] | None = None) -> None:
        super().__init__(config, spec, parts)
        self._codes: Tensor | None = None  # (1 or 2, N, latent), of images and of mirrored ones, built by prepare_codes
        self._drawn: Tensor | None = None  # (DRAWN, latent) codes of the prior, built by prepare_draws
        self.mirrors = mirrors(spec, config.augment)
        latent = self.latent = config.latent if self.base is None else code_size(self.base, spec)
        if self.base is None:
            self.components = Components(spec, latent) if config.components else None
            self.encoder = encoder_for(config.network, spec, config.widths, latent, self.components)
            self.decoder = decoder_for(config.network, spec, config.widths, latent, self.components)
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_scale", torch.eye(latent))  # maps whitened codes to codes
        if config.prior == "gan":
            self.generator = ResidualMlp(latent, config.hidden)
            self.code_critic = mlp([latent, *config.hidden, 1], leaky)
            if config.image_weight:
                self.image_critic = ConvDiscriminator(spec, config.image_widths)
        elif config.prior == "flow":
            self.velocity = Velocity(latent, config.flow_width, config.flow_blocks)
            if not config.guidance:
                self.register_buffer("exaggeration", torch.tensor(1.5))  # until it is measured
        self.averaged = {"gan": ("generator",), "flow": ("velocity",)}.get(config.prior, ())
        self.sharpens = config.sharpen > 0 and self.base is None  # the decoder of another run is not this one's to move
        if self.sharpens and config.share + config.sharpen >= 1 and config.prior in ("gan", "flow"):
            what = f"share {config.share:g} and sharpen {config.sharpen:g} leave nothing of the run for the prior"
            raise UserError(what, "--set share", "let their sum be less than 1: --set share=0.2, say")
        if self.sharpens:
            self.averaged += ("decoder",)
            self.sharp_critic = ConvDiscriminator(spec, config.sharp_widths, norm="spectral")

    @property
    def base(self) -> Any:
        """The auto-encoder of another run, or None where this one trains its own."""
        return self.parts["base"] if "base" in self.parts else None  # noqa: SIM401 (a ModuleDict has no get)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config

        def adversary(module: nn.Module, lr: float) -> Player:
            return Player((module,), lr=lr, betas=(0.0, 0.99), schedule=c.schedule)

        players = {}
        if self.base is None:
            warm_up = warm_up_for(self.components)
            players["encoder"] = Player((self.encoder,), lr=c.lr, schedule=c.schedule, warm_up=warm_up)
            players["decoder"] = Player((self.decoder,), lr=c.lr, schedule=c.schedule, warm_up=warm_up)
        if c.prior == "gan":
            players["code_critic"] = adversary(self.code_critic, c.latent_lr)
            players["generator"] = adversary(self.generator, c.latent_lr)
            if c.image_weight:
                players["image_critic"] = Player((self.image_critic,), lr=c.image_lr, betas=(0.5, 0.99), schedule=c.schedule)
        elif c.prior == "flow":
            players["velocity"] = Player((self.velocity,), lr=c.latent_lr, schedule=c.schedule)
        if self.sharpens:
            players["sharp_critic"] = adversary(self.sharp_critic, 2 * c.sharp_lr)
        return players

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        if self.base is not None:
            return self.prior_stages(1.0)
        fit = Stage("auto-encoder", self.autoencoder_turns, ("encoder", "decoder"), c.share, self.fit_components, samples=False)
        if not self.sharpens:
            return fit, *self.prior_stages(1 - c.share)
        # In eval mode the decoder's batch norms keep the statistics of reconstructions, whatever the prior's draws would make of them.
        settings = {"decoder": {"lr": c.sharp_lr, "betas": (0.0, 0.99), "steady": True}}
        players = ("sharp_critic", "decoder")
        sharpen = Stage("sharpening", self.sharpening_turns, players, c.sharpen, self.prepare_draws, batch=c.sharp_batch, settings=settings)
        return fit, *self.prior_stages(1 - c.share - c.sharpen), sharpen

    def prior_stages(self, share: float) -> tuple[Stage, ...]:
        c = self.config
        if c.prior == "flow":
            flow = Stage("flow", self.flow_turns, ("velocity",), share, self.prepare_codes, needs=frozenset(), batch=c.latent_batch)
            guidance = Stage("guidance", self.flow_turns, players=(), share=0, prepare=self.prepare_guidance)
            return (flow,) if c.guidance else (flow, guidance)
        if c.prior != "gan":
            return (Stage("fitted Gaussian", self.latent_turns, players=(), share=0, prepare=self.prepare_codes),)
        needs = frozenset({"image"}) if c.image_weight and c.image_real == "data" else frozenset()
        players = ("code_critic", "generator") + (("image_critic",) if c.image_weight else ())
        return (Stage("latent GAN", self.latent_turns, players, share, prepare=self.prepare_codes, needs=needs, batch=c.latent_batch),)

    def fit_components(self, whole: Whole) -> None:
        if self.components is not None:
            self.components.fit(whole)

    def autoencoder_turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        image = self.seen(batch)
        raw = raw_image(self.decoder, self.components, self.encode(image))
        error = F.mse_loss(learned_image(raw, self.components), image)
        yield Turn({"encoder": error, "decoder": error})

    def seen(self, batch: Batch) -> Tensor:
        """The batch's images, about half of them mirrored where images are mirrored: (B, C, H, W)."""
        return mirrored(batch.image) if self.mirrors else batch.image

    def prepare_codes(self, batches: Whole) -> None:
        """Encode all the data once, take the codes' statistics, and keep the whitened codes at hand."""
        found = []
        for batch in batches:
            ways = (batch.image, batch.image.flip(3)) if self.mirrors else (batch.image,)
            found.append(torch.stack([self.encode(image) for image in ways]))
        codes = torch.cat(found, 1)
        mean, scale, white = whiten(codes.flatten(0, 1), full=self.config.prior != "diagonal")
        self.code_mean.copy_(mean)
        self.code_scale.copy_(scale)
        self._codes = white.view_as(codes)

    def real_codes(self, batch: Batch) -> Tensor:
        """The whitened codes of the batch's images, mirrored ones among them where images are mirrored: (B, latent)."""
        assert self._codes is not None, "prepare_codes comes first"
        if len(self._codes) == 1:
            return self._codes[0, batch.index]
        which = torch.randint(len(self._codes), (len(batch),), device=batch.device)
        return self._codes[which, batch.index]

    def flow_turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        yield Turn({"velocity": flow_loss(self.velocity, self.real_codes(batch))})

    def prepare_guidance(self, batches: Whole) -> None:
        """Exaggerate the flow as much as gives its draws the spread of the whitened codes, which is 1."""
        noise = torch.randn(DRAWN // 8, self.latent, device=self.code_mean.device)
        self.exaggeration.fill_(guidance_for(self.velocity, noise, self.config.steps))

    def latent_turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        real, fake = self.real_codes(batch), self.prior_code(self.noise(batch))

        on_real, on_fake = self.code_critic(torch.cat([real, fake.detach()])).chunk(2)  # D1 has no batch norm: one pass for both
        critic = real_loss(on_real) + fake_loss(on_fake)
        if c.penalty != "none" and clock.step % c.penalty_every == 0:
            penalty = r1_penalty(self.code_critic, real) if c.penalty == "r1" else one_centred_penalty(self.code_critic, real, fake)
            yield Turn({"code_critic": critic + c.penalty_weight * c.penalty_every * penalty}, {"penalty": penalty})
        else:
            yield Turn({"code_critic": critic})

        fake_image = None
        if c.image_weight:
            fake_image = self.decode(self.code_from(fake))
            real_image = batch.image if c.image_real == "data" else self.decode(self.code_from(real)).detach()
            judged = real_loss(self.image_critic(real_image)) + fake_loss(self.image_critic(fake_image.detach()))
            yield Turn({"image_critic": judged})

        loss = real_loss(self.code_critic(fake))
        if fake_image is not None:
            loss = loss + c.image_weight * real_loss(self.image_critic(fake_image))
        yield Turn({"generator": loss})

    def prepare_draws(self, batches: Whole) -> None:
        """Draw codes of the prior once; a flow would cost as much as the decoder at every step."""
        noise = torch.randn(DRAWN, self.latent, device=self.code_mean.device)
        self._drawn = torch.cat([self.code_from(self.prior_code(some)) for some in noise.split(1024)])

    def sharpening_turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        assert self._drawn is not None, "prepare_draws comes first"
        real = self.seen(batch)
        # Of each batch a half is reconstructed and a half drawn, so that the discriminator sees as many fakes as real images.
        again, half = real[::2], self._drawn[torch.randint(DRAWN, (len(batch) // 2,), device=batch.device)]
        raw = raw_image(self.decoder, self.components, torch.cat([self.encode(again).detach(), half]))
        fake = image_of(raw, self.components)

        shown = [differentiable(image, c.sharp_augment) for image in (real, fake.detach())]
        on_real, on_fake = self.sharp_critic(torch.cat(shown)).split([len(real), len(fake)])
        yield Turn({"sharp_critic": real_loss(on_real) + fake_loss(on_fake)}, {"right": judged_right(on_real, on_fake)})

        error = squared_error(learned_image(raw, self.components)[: len(again)], again).mean() / again[0].numel()
        verdict = real_loss(self.sharp_critic(differentiable(fake, c.sharp_augment)))
        yield Turn({"decoder": error + c.sharp_weight * verdict}, {"squared error": error, "verdict": verdict})

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.latent,)

    def prior_code(self, noise: Tensor) -> Tensor:
        """G1, the flow, or nothing where the prior is a fitted Gaussian: noise (B, latent) -> whitened codes (B, latent)."""
        if self.config.prior == "flow":
            return carried(self.velocity, noise, self.config.steps, guidance=self.config.guidance or self.exaggeration)
        return self.generator(noise) if self.config.prior == "gan" else noise

    def code_from(self, white: Tensor) -> Tensor:
        """Whitened codes to codes: (B, latent) -> (B, latent)."""
        return unwhiten(white, self.code_mean, self.code_scale)

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, latent)."""
        if self.base is not None:
            return self.base.encode(image)
        return code_of(self.encoder, self.components, image)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        if self.base is not None:
            return self.base.decode(latent)
        return image_of(raw_image(self.decoder, self.components, latent), self.components)

    def sample(self, noise: Tensor) -> Tensor:
        """The decoder of the prior's code: (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(self.code_from(self.prior_code(noise)))
