"""Moving averages of the sub-modules that generate."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from models.base import LatentModel


class Averages:
    """Keeps, for each sub-module named in `model.averaged`, a copy whose weights follow the model's as an exponential moving average.

    The half-life is counted in images and warms up: it is never more than a tenth of the images seen in the stage, so that the average
    does not drag the first weights along. (With a decay of .999 from the first step a latent GAN's FID was twice as bad.) A network that
    moves at every n-th step only, as a Wasserstein generator does, decays then by the images of all n.
    Buffers such as batch norm's running statistics are averaged as well; integer buffers are copied.

    Args:
        waiting: images seen since each sub-module last moved, as `waiting` of the averages that are gone on with.
    """

    def __init__(self, model: LatentModel, half_life: int, waiting: Mapping[str, int] | None = None) -> None:
        self.model, self.half_life = model, half_life
        names = model.averaged if half_life else ()
        self.modules = {name: copy.deepcopy(model.get_submodule(name)).eval().requires_grad_(False) for name in names}
        self.waiting = {name: (waiting or {}).get(name, 0) for name in names}

    @torch.no_grad()
    def update(self, seen_in_stage: int, images: int, moved: set[int]) -> None:
        """Follow the model after a step of `images` images; only modules with a parameter whose id is in `moved` have changed."""
        half_life = min(self.half_life, 0.1 * seen_in_stage)
        for name, average in self.modules.items():
            source = self.model.get_submodule(name)
            self.waiting[name] += images
            if not any(id(p) in moved for p in source.parameters()):
                continue
            decay = 0.5 ** (self.waiting[name] / half_life)
            self.waiting[name] = 0
            old: list[Tensor] = list(average.parameters())
            new: list[Tensor] = list(source.parameters())
            counters: list[tuple[Tensor, Tensor]] = []
            for mine, its in zip(average.buffers(), source.buffers(), strict=True):
                if mine.is_floating_point():
                    old.append(mine)
                    new.append(its)
                else:
                    counters.append((mine, its))
            torch._foreach_lerp_(old, new, 1 - decay)
            if counters:
                torch._foreach_copy_([mine for mine, _ in counters], [its for _, its in counters])

    def tensors(self) -> dict[str, Tensor]:
        """Name (``generator.0.weight``) -> tensor, parameters and buffers."""
        return {f"{name}.{key}": value for name, module in self.modules.items() for key, value in module.state_dict().items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model generates from the averages inside this block."""
        own = {name: self.model.get_submodule(name) for name in self.modules}
        try:
            for name, module in self.modules.items():
                self.model.set_submodule(name, module)
            yield
        finally:
            for name, module in own.items():
                self.model.set_submodule(name, module)
