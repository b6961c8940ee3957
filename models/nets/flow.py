"""Flow matching: a velocity field that carries N(0, I) to a set of vectors along nearly straight lines.

Lipman et al., Flow Matching for Generative Modeling, 2023; Liu et al., Flow Straight and Fast, 2023 (rectified flow). At time t from 0 to
1 a point on the way is (1 - t) e + t x for noise e and a vector x, its velocity x - e; the field learns the mean velocity of all ways
through a point. Times are drawn as sigmoid(N(0, 1)), because learning is hardest half-way (Esser et al., Scaling
Rectified Flow Transformers, 2024, eq. 19).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nets.conv import start_at_zero

WAVES = 32  # pairs of sine and cosine that describe a time


class Velocity(nn.Module):
    """The velocity at points (B, D) and times (B,) from 0 to 1, or one time (1,) for all; zero at the start. (B, D) -> (B, D).

    Residual blocks whose inputs are normalised, then scaled and shifted by what is made of the time and of what the field is told (Peebles
    and Xie, Scalable Diffusion Models with Transformers, 2023). `told` is the length of the vector (B, told) that says what is asked for; a
    vector of zeros asks for nothing.
    """

    def __init__(self, dimensions: int, width: int = 512, blocks: int = 4, told: int = 0) -> None:
        super().__init__()
        self.into = nn.Linear(dimensions, width)
        self.when = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.what = nn.Linear(told, width, bias=False) if told else None
        self.shapes = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(blocks)
        )
        self.out = nn.Linear(width, dimensions)
        for layer in (*self.shapes, self.out):
            start_at_zero(layer)

    def forward(self, x: Tensor, time: Tensor, told: Tensor | None = None) -> Tensor:
        angles = time[:, None] * torch.logspace(0, 3, WAVES, device=time.device)
        known = self.when(torch.cat([angles.sin(), angles.cos()], 1))
        if self.what is not None and told is not None:
            known = known + self.what(told)
        known, h = F.silu(known), self.into(x)
        for shape, block in zip(self.shapes, self.blocks, strict=True):
            gain, shift, share = shape(known).chunk(3, 1)
            h = h + share * block(F.layer_norm(h, h.shape[1:]) * (1 + gain) + shift)
        return self.out(h)


def flow_loss(velocity: nn.Module, x: Tensor, told: Tensor | None = None) -> Tensor:
    """The mean squared error of the velocity at random times on the ways from noise to `x` (B, D)."""
    noise = torch.randn_like(x)
    time = torch.randn(len(x), device=x.device).sigmoid()
    found = velocity(torch.lerp(noise, x, time[:, None]), time, told)
    return F.mse_loss(found.float(), x - noise)


def carried(velocity: nn.Module, noise: Tensor, steps: int, told: Tensor | None = None, guidance: float | Tensor = 1.0) -> Tensor:
    """Noise (B, D) carried to time 1 by Heun's method, in float32: a pure, differentiable function. (B, D) -> (B, D).

    The last step is Euler's, because beyond it the field was never asked. `guidance` above 1 exaggerates in what the field differs from a
    poorer one: what is `told` from the field that is told nothing (Ho and Salimans, Classifier-Free Diffusion Guidance, 2022); told
    nothing, all that was learned from the field of N(0, I), which whitened vectors have if they are Gaussian (Karras et al., Guiding a
    Diffusion Model with a Bad Version of Itself, 2024). A field of few steps leans towards that Gaussian, and this sets it upright.
    """

    def at(x: Tensor, time: float) -> Tensor:
        when = x.new_full((1,), time)
        found = velocity(x, when, told).float()
        if isinstance(guidance, float | int) and guidance == 1:  # a tensor is not asked, which would wait for its device
            return found
        poorer = gaussian_velocity(x, time) if told is None else velocity(x, when, torch.zeros_like(told)).float()
        return torch.lerp(poorer, found, guidance)

    x = noise.float()
    for n in range(steps):
        time, then = n / steps, (n + 1) / steps
        slope = at(x, time)
        if n < steps - 1:
            slope = (slope + at(x + slope / steps, then)) / 2
        x = x + slope / steps
    return x


@torch.no_grad()
def guidance_for(velocity: nn.Module, noise: Tensor, steps: int, spread: float = 1.0) -> float:
    """The guidance, from 1 to 4, with which what is carried from `noise` (B, D) has the quadratic mean `spread` of the vectors learned."""
    low, high = 1.0, 4.0
    for _ in range(8):
        middle = (low + high) / 2
        narrow = float(carried(velocity, noise, steps, guidance=middle).square().mean().sqrt()) < spread
        low, high = (middle, high) if narrow else (low, middle)
    return low


def gaussian_velocity(x: Tensor, time: float) -> Tensor:
    """The mean velocity where vectors are N(0, I) like the noise: x cov(vector - e, x) / var(x) at points x (B, D). (B, D) -> (B, D)."""
    return x * ((2 * time - 1) / (time**2 + (1 - time) ** 2))
