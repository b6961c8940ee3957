"""Blocks, blends and layouts: what lies between a model and a picture file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from models.base import DataSpec, LatentModel
from models.capabilities import pictures
from models.capabilities.ask import evaluating, images_from, in_blocks
from models.capabilities.interpolate import blend
from models.capabilities.pictures import columns_for, grid, pairs
from models.capabilities.project import search
from models.capabilities.reconstruct import reconstructions
from models.capabilities.sample import draw
from models.device import block_of
from models.errors import UserError
from models.randomness import image_noise

CPU = torch.device("cpu")


def images(count: int, height: int = 3, width: int = 4, channels: int = 1) -> np.ndarray:
    """Image n is the flat value n + 1."""
    values = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(values, (count, height, width, channels)).copy()


# ---- blend ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["lerp", "slerp"])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 4)])
def test_blend_begins_and_ends_at_its_ends(path: Any, shape: tuple[int, ...]) -> None:
    dice = torch.Generator().manual_seed(0)
    a, b = torch.randn(shape, generator=dice), 3 * torch.randn(shape, generator=dice)
    way = blend(a, b, 7, path)
    assert way.shape == (7, *shape)
    assert torch.allclose(way[0], a, atol=1e-6)
    assert torch.allclose(way[-1], b, atol=1e-6)


def test_lerp_is_the_straight_line() -> None:
    way = blend(torch.tensor([0.0, 4.0]), torch.tensor([8.0, 0.0]), 5, "lerp")
    assert way.tolist() == [[0, 4], [2, 3], [4, 2], [6, 1], [8, 0]]


def test_slerp_is_the_great_circle_at_an_even_pace() -> None:
    way = blend(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 4, "slerp")
    angles = torch.tensor([0.0, 30.0, 60.0, 90.0]).deg2rad()
    assert torch.allclose(way, torch.stack([angles.cos(), angles.sin()], 1), atol=1e-6)


def test_slerp_changes_the_length_evenly() -> None:
    way = blend(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 6.0]), 5, "slerp")
    assert way.norm(dim=1).tolist() == pytest.approx([2, 3, 4, 5, 6])


def test_slerp_keeps_the_length_that_lerp_loses() -> None:
    a, b = image_noise(0, [0, 1], (64,))
    lengths = blend(a, b, 9, "slerp").norm(dim=1)
    assert min(a.norm(), b.norm()) - 1e-4 <= lengths.min()
    assert blend(a, b, 9, "lerp").norm(dim=1).min() < 0.85 * lengths.min()


@pytest.mark.parametrize("b", [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1e-7]])
def test_slerp_of_parallel_opposite_and_zero_ends_is_finite(b: list[float]) -> None:
    way = blend(torch.tensor([1.0, 0.0]), torch.tensor(b), 5, "slerp")
    assert torch.isfinite(way).all()
    assert torch.allclose(way[0], torch.tensor([1.0, 0.0]))
    assert torch.allclose(way[-1], torch.tensor(b))
    assert way.norm(dim=1).max() <= 2


BLOCK = block_of(CPU)


# ---- blocks --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_in_blocks_shows_the_function_full_blocks_only(count: int) -> None:
    shapes: list[tuple[int, ...]] = []

    def double(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return (2 * x).double()

    inputs = torch.arange(count * 6.0).view(count, 2, 3)
    made = in_blocks(double, CPU, inputs)
    assert set(shapes) == {(BLOCK, 2, 3)}
    assert len(shapes) == -(-count // BLOCK)
    assert made.dtype == torch.float32
    assert torch.equal(made, 2 * inputs)


class Painter(LatentModel):
    """Its sample of the noise z is the flat grey value tanh(z), so that each image tells which noise it had."""

    def __init__(self) -> None:
        super().__init__(None, DataSpec.of_images(1, 2, 2))
        self.scale = nn.Parameter(torch.ones(()))
        self.norm = nn.BatchNorm1d(1)  # in training mode it would mix the items of a batch

    noise_shape = (1,)

    def sample(self, noise: Tensor) -> Tensor:
        assert not self.training
        return torch.tanh(self.norm(noise) * self.scale).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def drawn(count: int, seed: int = 0, **where: int) -> np.ndarray:
    return np.concatenate(list(draw(Painter(), count, seed, **where)))


def test_sample_i_depends_on_the_seed_and_i_alone() -> None:
    every = drawn(70)
    expected = torch.tanh(image_noise(0, range(70), (1,)) / (1 + 1e-5) ** 0.5)
    assert np.abs(every[:, 0, 0, 0] - ((expected[:, 0].numpy() + 1) * 127.5)).max() <= 0.51
    for first, count in ((0, 1), (1, 1), (15, 2), (16, 16), (17, 40), (69, 1)):
        for batch in (1, 16, 40, 1000):
            assert np.array_equal(drawn(count, first=first, batch=batch), every[first : first + count])
    assert not np.array_equal(drawn(70, seed=1), every)


@pytest.mark.parametrize(("batch", "sizes"), [(256, [40]), (16, [16, 16, 8]), (3, [16, 16, 8]), (33, [32, 8])])
def test_sample_comes_in_parts(batch: int, sizes: list[int]) -> None:
    assert [len(part) for part in draw(Painter(), 40, 0, batch=batch)] == sizes


def test_evaluating_restores_every_module_s_own_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    model[1].eval()
    model[1][1].train()
    before = [module.training for module in model.modules()]
    inside: list[bool] = []

    def fail() -> None:
        with evaluating(model):
            inside.extend([*(module.training for module in model.modules()), torch.is_grad_enabled()])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(inside) == 6
    assert not any(inside)
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()


class Copier(LatentModel):
    """Its code is the image; it decodes to something half as bright."""

    def __init__(self) -> None:
        super().__init__(None, DataSpec.of_images(1, 3, 4))
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, image: Tensor) -> Tensor:
        return image.flatten(1)

    def decode(self, latent: Tensor) -> Tensor:
        return latent.view(-1, 1, 3, 4) * self.weight / 2


def test_a_capability_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match="this model cannot reconstruct"):
        reconstructions(Painter(), images(2))
    with pytest.raises(UserError, match="this model cannot sample"):
        next(draw(Copier(), 1, 0))
    with pytest.raises(UserError, match="this model cannot project"):
        search(Copier(), images(1))


def test_reconstruct_gives_images_and_errors_from_black_0_to_white_1() -> None:
    shown = np.stack([np.full((3, 4, 1), 255, np.uint8), np.zeros((3, 4, 1), np.uint8), np.full((3, 4, 1), 51, np.uint8)])
    again, error = reconstructions(Copier(), shown)
    assert (again.dtype, again.shape) == (np.uint8, shown.shape)
    assert again[:, 0, 0, 0].tolist() == [191, 64, 89]  # 1, -1 and -0.6 halved, (x + 1) * 127.5 rounded
    assert error.tolist() == pytest.approx([0.0625, 0.0625, 0.0225])


def test_project_finds_the_noise_of_a_sample() -> None:
    model = Painter()
    wanted = drawn(3, seed=5)
    steps: list[tuple[int, int]] = []
    found = search(model, wanted, steps=60, restarts=3, progress=lambda *step: steps.append(step))
    assert found.noise.shape == (3, 1)
    assert found.error.max() < 1e-3
    assert np.abs(images_from(model, found.noise, "noise").astype(int) - wanted).max() <= 8
    assert steps == [(n, 60) for n in range(1, 61)]
    again = search(model, wanted, steps=60, restarts=3)
    assert torch.equal(found.noise, again.noise)
    assert model.scale.grad is None


def test_more_steps_never_make_a_projection_worse() -> None:
    model, wanted = Painter(), drawn(4, seed=6)
    start, more = (search(model, wanted, steps=steps, restarts=1).error for steps in (0, 40))
    assert (more <= start).all()
    assert more.sum() < start.sum()


# ---- layouts -------------------------------------------------------------------------------------------------------------------------


def test_grid_puts_images_in_rows_with_gaps() -> None:
    picture = grid(images(5), columns=3)
    assert (picture.shape, picture.dtype) == ((2 + 2 * 5, 2 + 3 * 6, 1), np.uint8)
    for number in range(5):
        top, left = 2 + 5 * (number // 3), 2 + 6 * (number % 3)
        assert (picture[top : top + 3, left : left + 4] == number + 1).all()
    assert (picture == 255).sum() == picture.size - 5 * 12


def test_grid_in_colour_and_from_a_list() -> None:
    assert grid(images(4, channels=3), 2).shape == (2 + 2 * 5, 2 + 2 * 6, 3)
    assert np.array_equal(grid(list(images(3)), 3), grid(images(3), 3))


def test_a_grid_has_no_more_columns_than_images() -> None:
    assert np.array_equal(grid(images(3), 500), grid(images(3), 3))
    assert np.array_equal(pictures.rows([images(3), images(2)], 500), pictures.rows([images(3), images(2)], 3))


@pytest.mark.parametrize(("count", "columns", "lists"), [(5, 3, 1), (5, 3, 4), (6, 3, 2), (2, 9, 3)])
def test_the_size_of_a_grid_is_known_before(count: int, columns: int, lists: int) -> None:
    picture = pictures.rows([images(count)] * lists, columns)
    assert pictures.grid_size(count, columns, (3, 4), lists) == picture.shape[:2]


def test_a_grid_is_no_larger_than_what_can_be_read_again() -> None:
    pictures.check_grid(77_000, (32, 32))
    with pytest.raises(UserError, match="more than the limit of 89,478,485: -n"):
        pictures.check_grid(78_000, (32, 32))
    with pytest.raises(UserError, match="78,000 images"):
        pictures.check_grid(7_800, (32, 32), 10_000, lists=10)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (64, 8), (65, 9)])
def test_columns_make_it_about_square(count: int, columns: int) -> None:
    assert columns_for(count) == columns


def test_pairs_puts_every_row_under_its_partner() -> None:
    above, below = images(5), images(5) + 100
    picture = pairs(above, below, columns=3)
    assert picture.shape == (2 + 4 * 5, 2 + 3 * 6, 1)
    middles = picture[3::5, 3::6, 0]
    assert middles.tolist() == [[1, 2, 3], [101, 102, 103], [4, 5, 255], [104, 105, 255]]


# ---- files ---------------------------------------------------------------------------------------------------------------------------


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_write_grid_and_pairs(tmp_path: Path) -> None:
    assert np.array_equal(opened(pictures.write(grid(images(4)), tmp_path / "a.png")), grid(images(4), 2)[:, :, 0])
    assert np.array_equal(opened(pictures.write(grid(images(4, channels=3), 4), tmp_path / "b.png")), grid(images(4, channels=3), 4))
    assert np.array_equal(opened(pictures.write(pairs(images(9), images(9)), tmp_path / "c.png")), pairs(images(9), images(9), 8)[:, :, 0])


def test_write_singles_numbers_across_blocks(tmp_path: Path) -> None:
    done: list[int] = []
    blocks = pictures.counted(iter([images(2), images(3)]), done.append)
    assert pictures.write_singles(blocks, tmp_path / "new" / "folder") == 5
    assert done == [0, 2, 5]
    found = sorted((tmp_path / "new" / "folder").iterdir())
    assert [p.name for p in found] == [f"{n:06d}.png" for n in range(5)]
    assert [int(opened(p)[0, 0]) for p in found] == [1, 2, 1, 2, 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_write_gif_goes_there_and_back(tmp_path: Path, channels: int) -> None:
    flat = images(4, 8, 8, channels) * 60
    path = pictures.write_gif(flat, tmp_path / "way.gif", seconds=0.1)
    with Image.open(path) as animation:
        frames = []
        for number in range(animation.n_frames):
            animation.seek(number)
            frames.append(int(np.asarray(animation.convert("L"))[4, 4]))
            assert animation.info["duration"] == 100
    assert frames == pytest.approx([60, 120, 180, 240, 180, 120], abs=2)


def test_write_gif_of_two_images(tmp_path: Path) -> None:
    with Image.open(pictures.write_gif(images(2) * 100, tmp_path / "way.gif")) as animation:
        assert animation.n_frames == 2
