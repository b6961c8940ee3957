"""Cross-domain: translation between two auto-encoders' latent spaces, both ways; many answers to one image.

Source: a note on cross-domain generation with latent exploration (arXiv 1805.10130), after Latent Constraints (Engel et al. 2018). Two
auto-encoders, each trained on its own domain, are frozen. For each direction a gated map G takes the code of an image and noise epsilon to
a code of the other domain, and a critic D judges pairs: (z, a code of a matching image) is real; (z, G(z, epsilon)) and (z, a code of
another group) are not. The last are not the note's, but Latent Constraints'; the note has (z, epsilon) instead (`untouched`), which drives
translations away from where noise is and so costs variety: that is where most codes are. G minimises -log D + noise_weight * |epsilon -
G(z, epsilon)|^2, so that it keeps what it can of the noise. Who matches is known by class, attributes or identity, not image by image.

`pairs=none` knows nothing of who matches: critics see codes alone, and a cycle term asks that the way back finds the code again. That keeps
images apart, but gives no reason to find which class is which.

All codes are encoded once, whitened by their mean and covariance, and cached; so epsilon is of their scale, and a step costs no image.
What is translated is the encoder's answer, the best there is to know of an image. What translations should be like are draws of the
posterior where the part has one, new ones in every step: so its decoder has learned codes, and dimensions that it does not use are noise
on both sides, which needs no learning; among means alone, whitening makes them as large as all others. Half of the posterior's deviation
does for that, and what is decoded is nearer to what the encoder's answers are decoded to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, Encodes, Field, LatentModel, Part, Player, Posterior, Preset, Range, Stage, Turn, Whole
from models.losses import fake_loss, judged_right, r1_penalty, real_loss
from models.nets.autoencoder import code_size
from models.nets.gated import GatedMap
from models.nets.matching import Members, check_partners, class_map, groups
from models.nets.mlp import leaky, mlp
from models.nets.whitening import rescaled, unwhiten, whiten


class CrossDomain(LatentModel):
    @dataclass(frozen=True)
    class Config:
        pairs: Literal["label", "attributes", "identity", "none"] = "label"  # what images that match have in common
        map: tuple[str, ...] = ()  # classes that belong together, 1=6,2=7 or by name; those of equal names where nothing is said
        codes: Literal["draw", "mean"] = "draw"  # what translations should be like: draws of posteriors, if the part has such, or means
        spread: Annotated[float, Range(0, 1)] = 0.5  # deviation of a draw, in the posterior's
        hidden: Annotated[tuple[int, ...], Range(1, 8192)] = (256, 256, 256)  # hidden layers of maps and critics
        noise_weight: Annotated[float, Range(0, 1e6)] = 0.03  # pull of a translation towards its noise
        mismatched: bool = True  # whether critics also see pairs of real codes that do not match
        mismatch_weight: Annotated[float, Range(0, 1e6)] = 1.0  # of those pairs beside the translations: 4 makes maps decide
        untouched: bool = False  # whether critics also see codes beside the noise itself, as fakes
        cycle_weight: Annotated[float, Range(0, 1e6)] = 1.0  # of finding the code again on the way back, for pairs=none
        penalty_weight: Annotated[float, Range(0, 1e6)] = 0.1  # of R1 on real pairs
        penalty_every: Annotated[int, Range(1, 1000)] = 4  # steps from one penalty to the next, which then counts as many times
        lr: Annotated[float, Range(0, 10)] = 2e-3  # learning rate of maps and critics
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    sources = ("from", "to")
    takes = {
        "from": Part((Encodes,), "an auto-encoder of the one domain", source="from"),
        "to": Part((Encodes,), "an auto-encoder of the other domain", source="to"),
    }
    averaged = ("there", "back")
    before = {"untouched": True, "spread": 1.0}
    presets = {
        "quick": Preset(500_000, batch=64, about="two minutes"),
        "default": Preset(3_000_000, batch=64, about="eleven minutes of one core"),
        "paper": Preset(
            20_000_000,
            options={
                "hidden": (1024, 1024, 1024, 1024),
                "noise_weight": 0.1,
                "lr": 1e-4,
                "codes": "mean",
                "mismatched": False,
                "untouched": True,
                "penalty_weight": 1.0,
            },
            about="the note's three groups; nets and learning rate of Latent Constraints, because the note names none",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec, parts: Mapping[str, LatentModel]) -> None:
        super().__init__(config, spec, parts)
        self.needs = frozenset({"image", "to.image"})
        if config.pairs != "none":
            self.needs |= {config.pairs, f"to.{config.pairs}"}
        self._pairs: dict[int, int] | None = None
        if config.pairs == "label" and self.needs <= spec.provides:
            self._pairs = class_map(config.map, spec, spec["to"])
        one, other = code_size(self.part("from"), spec), code_size(self.part("to"), spec["to"])
        self.translation_noise, self.return_noise = (other,), (one,)
        self.there, self.back = GatedMap(one, other, config.hidden), GatedMap(other, one, config.hidden)
        seen = 0 if config.pairs == "none" else 1  # whether a critic sees the code that was translated
        self.judge_there = mlp([seen * one + other, *config.hidden, 1], leaky)
        self.judge_back = mlp([seen * other + one, *config.hidden, 1], leaky)
        for side, size in (("from", one), ("to", other)):
            self.register_buffer(f"mean_{side}", torch.zeros(size))
            self.register_buffer(f"scale_{side}", torch.eye(size))  # maps whitened codes to codes
        self._codes: dict[str, Tensor] = {}  # whitened, (N, D) of each side
        self._deviations: dict[str, Tensor] = {}  # of the posteriors, (N, D), not whitened; of the sides whose codes are drawn
        self._members: dict[str, Members] = {}

    def part(self, side: str) -> Any:
        return self.parts[side]

    def draws_codes(self, side: str) -> bool:
        return self.config.codes == "draw" and isinstance(self.parts[side], Posterior)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules: dict[str, tuple[nn.Module, ...]] = {"critics": (self.judge_there, self.judge_back), "maps": (self.there, self.back)}
        return {name: Player(parts, c.lr, betas=(0.0, 0.99), schedule=c.schedule) for name, parts in modules.items()}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("two ways", self.turns, players=("critics", "maps"), prepare=self.prepare, needs=frozenset()),)

    def prepare(self, whole: Whole) -> None:
        """Find who matches whom; encode all images of both sides once, take the codes' statistics, and keep the whitened codes at hand."""
        sides: dict[str, Iterable[Batch]] = {"from": whole, "to": whole["to"]}
        found = groups(self._shown(whole), self._shown(whole["to"]), self._pairs)
        self._members = {side: Members(group) for side, group in zip(sides, found)}
        names = [f"{self.spec.classes[a]}={self.spec['to'].classes[b]}" for a, b in (self._pairs or {}).items()]
        check_partners(self._members["from"], self._members["to"], names, self.config.pairs)  # it costs no image: the codes come after
        for side, batches in sides.items():
            codes, deviations = self._seen(side, batches)
            mean, scale, self._codes[side] = whiten(codes, full=True, deviations=deviations)
            if deviations is not None:
                self._deviations[side] = deviations
            self.get_buffer(f"mean_{side}").copy_(mean)
            self.get_buffer(f"scale_{side}").copy_(scale)

    def _shown(self, batches: Iterable[Batch]) -> Tensor:
        """What a side's images show, by which they match: (N,) or (N, A) int64; zeros where it is of no account."""
        pairs = self.config.pairs
        return torch.cat([torch.zeros_like(batch.index) if pairs == "none" else getattr(batch, pairs).long() for batch in batches])

    def _seen(self, side: str, batches: Iterable[Batch]) -> tuple[Tensor, Tensor | None]:
        """Codes (N, D) of a side's images, and the posteriors' deviations where codes are drawn from them."""
        if not self.draws_codes(side):
            return torch.cat([self.part(side).encode(batch.image).float() for batch in batches]), None
        codes, deviations = zip(*(self.part(side).posterior(batch.image) for batch in batches))
        return torch.cat(codes), torch.cat(deviations)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        here, there = self._met("from", "to", batch.index), self._met("to", "from", batch["to"].index)
        noise_there, noise_back = torch.randn_like(here.partner), torch.randn_like(there.partner)
        made_there, made_back = self.there(here.code, noise_there), self.back(there.code, noise_back)

        penalty = clock.step % c.penalty_every == 0
        critics, right_there = self._judged(self.judge_there, here, made_there.detach(), noise_there, penalty)
        more, right_back = self._judged(self.judge_back, there, made_back.detach(), noise_back, penalty)
        yield Turn({"critics": critics + more}, {"right": (right_there + right_back) / 2})

        fooled = real_loss(self.judge_there(self.pair(here.code, made_there))) + real_loss(
            self.judge_back(self.pair(there.code, made_back))
        )
        moved = (made_there - noise_there).square().mean() + (made_back - noise_back).square().mean()
        loss, logs = fooled + c.noise_weight * moved, {"from the noise": moved.detach() / 2}
        if c.pairs == "none":
            again = (self.back(made_there, noise_back) - here.code).square().mean()
            again = again + (self.there(made_back, noise_there) - there.code).square().mean()
            loss, logs = loss + c.cycle_weight * again, {**logs, "cycle": again.detach() / 2}
        yield Turn({"maps": loss}, logs)

    def _met(self, side: str, other: str, index: Tensor) -> Met:
        """Codes of a side's items, of random partners on the other side, and of items that are none."""
        mine, its = self._members[side], self._members[other]
        item = mine.some(index)
        group = mine.group[item]
        stranger = its.items[torch.randint(len(its.items), (len(item),), device=item.device)]
        return Met(
            code=self._codes[side][item],
            partner=self._wanted(other, its.draw(group)),
            stranger=self._wanted(other, stranger),
            apart=(its.group[stranger] != group).float().unsqueeze(1),
        )

    def _wanted(self, side: str, item: Tensor) -> Tensor:
        """What translations to a side should be like: whitened codes of its items (B,), or draws of them; (B, D)."""
        code = self._codes[side][item]
        if side not in self._deviations:
            return code
        drawn = self.config.spread * self._deviations[side][item] * torch.randn_like(code)
        return code + rescaled(drawn, self.get_buffer(f"scale_{side}"))

    def _judged(self, judge: nn.Module, met: Met, made: Tensor, noise: Tensor, penalty: bool) -> tuple[Tensor, Tensor]:
        """What a critic pays, and the share of pairs that it takes for what they are: for real pairs and translations."""
        c = self.config
        real = self.pair(met.code, met.partner)
        fakes = [self.pair(met.code, made)]
        if c.untouched and c.pairs != "none":
            fakes.append(self.pair(met.code, noise))
        on_real, *on_fakes = judge(torch.cat([real, *fakes])).chunk(1 + len(fakes))
        loss = real_loss(on_real) + sum(fake_loss(on_fake) for on_fake in on_fakes) / len(on_fakes)
        if c.mismatched and c.pairs != "none":
            on_strangers = nn.functional.softplus(judge(self.pair(met.code, met.stranger)).float())
            loss = loss + c.mismatch_weight * (on_strangers * met.apart).sum() / met.apart.sum().clamp_min(1)
        if penalty and c.penalty_weight:
            loss = loss + c.penalty_weight * c.penalty_every * r1_penalty(judge, real)
        return loss, judged_right(on_real, on_fakes[0])

    def pair(self, code: Tensor, other: Tensor) -> Tensor:
        """What a critic sees: both codes, or the second alone where nothing is known of who matches."""
        return other if self.config.pairs == "none" else torch.cat([code, other], 1)

    # --- capabilities ---

    def gives(self, capability: str) -> Field:
        return self.spec["to"].fields["image"] if capability == "translate" else super().gives(capability)

    def translate(self, image: Tensor, noise: Tensor) -> Tensor:
        """Images of the one domain (B, C, H, W) and noise (B, D') -> images of the other (B, C', H', W') in [-1, 1]."""
        return self._translated(self.there, "from", "to", image, noise)

    def translate_back(self, image: Tensor, noise: Tensor) -> Tensor:
        """The same from the other domain to the one: (B, C', H', W') and (B, D) -> (B, C, H, W)."""
        return self._translated(self.back, "to", "from", image, noise)

    def _translated(self, way: nn.Module, side: str, other: str, image: Tensor, noise: Tensor) -> Tensor:
        mean, scale = self.get_buffer(f"mean_{side}"), self.get_buffer(f"scale_{side}")
        code = rescaled(self.part(side).encode(image).float() - mean, scale)
        made = unwhiten(way(code, noise), self.get_buffer(f"mean_{other}"), self.get_buffer(f"scale_{other}"))
        images: Tensor = self.part(other).decode(made)
        return images


@dataclass(frozen=True)
class Met:
    """Codes (B, D) of items; of a random partner of each and of random strangers on that side; and whether these are `apart` (B, 1)."""

    code: Tensor
    partner: Tensor
    stranger: Tensor
    apart: Tensor
