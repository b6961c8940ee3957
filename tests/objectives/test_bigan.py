"""BiGAN: what its discriminator of pairs, its encoder and its generator minimise, against the paper's formulas written out."""

from __future__ import annotations

import pytest
import torch
from formulas import agree, batch, close, made, minus_log, minus_log_of_not, share_right, turns
from torch import Tensor

from models.base import Clock


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_pairs_of_an_image_and_a_code(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("bigan", monkeypatch, network=network)
    shown = batch()

    def judge(image: Tensor, code: Tensor) -> Tensor:
        seen = model.discriminator.look(image)
        return model.discriminator.compare(torch.cat([torch.where(seen > 0, seen, 0.2 * seen), code], 1))

    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)
    noise = draws.prior[0]
    code, fake = model.encoder(shown.image), torch.tanh(model.generator(noise))
    on_real, on_fake = judge(shown.image, code.detach()), judge(fake.detach(), noise)
    agree(model, turn, {"discriminator": minus_log(on_real) + minus_log_of_not(on_fake)}, untouched=("encoder", "generator"))
    close(turn.logs["right"], share_right(on_real, on_fake))

    turn = next(step)
    code, fake = model.encoder(shown.image), torch.tanh(model.generator(noise))
    deceived = minus_log(judge(fake, noise)) + minus_log_of_not(judge(shown.image, code))
    agree(model, turn, {"encoder": deceived, "generator": deceived})
    assert next(step, None) is None


def test_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("bigan", monkeypatch)
    model.eval()
    image, noise = batch().image, torch.randn(2, model.noise_shape[0])
    close(model.encode(image), model.encoder.head(model.encoder.trunk(image)))
    close(model.sample(noise), torch.tanh(model.generator(noise)))
