"""The numbers behind the metrics: against closed forms, definitions written out in loops, and torch-fidelity on the same features."""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from safetensors.torch import load_file, save_file
from scipy.linalg import hadamard, sqrtm
from torch import Tensor
from torch import distributed as dist

from models.errors import ContractError, RunFailed, UserError
from models.metrics import class_balance, class_diversity, copying, diversity, fid, inception_score, kid, prdc, sharpness
from models.metrics.stats import files, frechet, neighbours
from models.metrics.stats.evidence import Collected, Evidence
from models.metrics.stats.frechet import cholesky_rows, factor, frechet_distance
from models.metrics.stats.moments import Moments

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def features(count: int, dimensions: int, seed: int = 0) -> Tensor:
    """float32, >= 0 with many zeros, correlated, of uneven variance: like a network's after a ReLU."""
    mixing = normal(dimensions, dimensions, seed=99) / torch.arange(1, dimensions + 1, dtype=F64).sqrt()[:, None]
    return (normal(count, dimensions, seed=seed) @ mixing + 0.3 * seed).relu().float()


def moments(rows: Tensor, batch: int = 10**9) -> Moments:
    made = Moments(rows.shape[1])
    for block in rows.split(batch):
        made.add(block)
    return made


def gaussian(mean: Tensor, covariance: Tensor) -> Moments:
    """Moments whose covariance is the given one, as of very many images."""
    return Moments.of(10**6, mean, covariance * (10**6 - 1))


def evidence(real: Tensor, generated: Tensor, seed: int = 0) -> Evidence:
    sides = (Collected(len(rows), moments(rows), rows, rows) for rows in (real, generated))
    return Evidence(*sides, seed=seed)


# ---- mean and covariance -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dimensions"), [(3000, 5), (40, 5), (4, 9), (1500, 1100)])
def test_moments_are_numpys(count: int, dimensions: int) -> None:
    rows = features(count, dimensions)
    made = moments(rows, 97)
    exact = rows.double().numpy()
    assert made.count == count
    assert torch.allclose(made.mean, torch.from_numpy(exact.mean(0)), rtol=1e-13, atol=0)
    expected = torch.from_numpy(np.cov(exact, rowvar=False))
    assert float((made.covariance() - expected).abs().max()) < 1e-13 * float(expected.diagonal().max())
    assert torch.equal(made.scatter, made.scatter.T)


def test_a_large_mean_cancels_nothing() -> None:
    small = normal(5000, 3).float() / 1024
    rows = ((small * 2**10).round() / 2**20).float() + 4096  # exact in float32: the deviations' bits survive the shift
    expected = np.cov((rows.double() - 4096).numpy(), rowvar=False)
    assert np.allclose(moments(rows, 100).covariance().numpy(), expected, rtol=1e-10, atol=0)


def test_I3_batch_size_changes_not_a_bit() -> None:
    rows = features(2500, 6)
    whole = moments(rows)
    for batch in (1, 7, 64, 1023, 1024, 1025):
        made = moments(rows, batch)
        assert torch.equal(made.mean, whole.mean) and torch.equal(made.scatter, whole.scatter), batch


def test_few_rows_wait_however_many_come() -> None:
    made = Moments(6)
    for _ in range(50):
        made.add(features(500, 6))
        assert sum(map(len, made._rows)) < 1024
    assert made.count == 25_000


def test_asking_changes_nothing() -> None:
    rows, asked = features(1500, 6), Moments(6)
    for block in rows.split(100):
        asked.add(block)
        asked.covariance()
    assert torch.equal(asked.scatter, moments(rows).scatter)


@pytest.mark.parametrize("counts", [(3, 4), (1500, 20), (20, 1500), (1500, 1100), (0, 9), (9, 0), (2048, 1024)])
def test_merged_moments_are_those_of_all_rows(counts: tuple[int, int]) -> None:
    rows = features(sum(counts), 6)
    one, other = (moments(part) for part in rows.split(list(counts)))
    before = other.scatter
    one.merge(other)
    whole = moments(rows)
    assert one.count == whole.count
    assert torch.allclose(one.mean, whole.mean, rtol=1e-13, atol=0)
    assert torch.allclose(one.scatter, whole.scatter, rtol=1e-12, atol=1e-12)
    assert torch.equal(other.scatter, before)


def test_I5_one_image_has_no_covariance_and_none_has_no_mean() -> None:
    one = moments(features(1, 4))
    assert torch.equal(one.covariance(), torch.zeros(4, 4, dtype=F64)) and torch.equal(one.mean, features(1, 4)[0].double())
    none = Moments(4)
    assert none.count == 0 and not none.mean.any() and not none.covariance().any()


def test_features_that_are_not_finite_are_refused_by_number() -> None:
    made, rows = moments(features(10, 4)), features(10, 4)
    rows[3, 1] = math.nan
    with pytest.raises(RunFailed, match="not finite: image 13"):
        made.add(rows)
    with pytest.raises(ValueError, match="4"):
        made.add(rows[:, :3])


def as_rank(rank: int, store: str, shares: list[int]) -> tuple[int, np.ndarray, np.ndarray, float]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=len(shares))
    try:
        made = moments(features(sum(shares), 6).split(shares)[rank])
        made.reduce()
        return made.count, made.mean.numpy(), made.scatter.numpy(), frechet_distance(made, moments(features(500, 6, seed=1)))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("shares", [[1300, 1200], [5, 0]])
def test_ranks_reduce_to_the_moments_of_all_images(shares: list[int], tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(support.call, as_rank, rank, str(tmp_path / "store"), shares) for rank in range(2)]
        (count, mean, scatter, distance), other = (call.result() for call in calls)
    whole = moments(features(sum(shares), 6))
    assert count == whole.count and other[3] == distance
    assert np.array_equal(mean, other[1]) and np.array_equal(scatter, other[2]) and np.array_equal(scatter, scatter.T)
    assert np.allclose(mean, whole.mean, rtol=1e-13, atol=0)
    assert np.allclose(scatter, whole.scatter, rtol=1e-12, atol=1e-12)
    assert distance == pytest.approx(frechet_distance(whole, moments(features(500, 6, seed=1))), rel=1e-10)


def test_without_a_group_there_is_nothing_to_reduce() -> None:
    made = moments(features(20, 30))
    made.reduce()
    assert made.count == 20 and made.deviations() is not None


# ---- the Frechet distance ------------------------------------------------------------------------------------------------------------


def rotation(size: int, seed: int = 7) -> Tensor:
    return torch.linalg.qr(normal(size, size, seed=seed))[0]


@pytest.mark.parametrize("size", [1, 2, 40])
def test_commuting_covariances(size: int) -> None:
    """In a common eigenbasis the distance is that of the means plus the sum of (deviation - deviation)^2."""
    one, other = (torch.arange(1, size + 1, dtype=F64) ** power for power in (-2, 1.5))
    turn = rotation(size)
    shift = normal(size)
    expected = float(shift.square().sum() + (one - other).square().sum())
    a, b = (gaussian(mean, turn * deviation**2 @ turn.T) for mean, deviation in ((shift, one), (0 * shift, other)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-12)


def test_sqrtm_agrees_where_it_is_accurate() -> None:
    a, b = (x.T @ x / 60 for x in (normal(60, 16, seed=1), normal(60, 16, seed=2)))
    expected = float(torch.trace(a) + torch.trace(b)) - 2 * float(np.trace(sqrtm((a @ b).numpy()).real))
    zero = torch.zeros(16, dtype=F64)
    assert frechet_distance(gaussian(zero, a), gaussian(zero, b)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("overlap", "size"), [(0, 12), (3, 12), (5, 40)])
def test_singular_covariances(overlap: int, size: int) -> None:
    """Two unit Gaussians on sub-spaces of 5 dimensions that share `overlap` of them: tr + tr - 2 * shared = 2 (5 - overlap)."""
    turn = rotation(size)
    one, other = turn[:, :5], turn[:, 5 - overlap : 10 - overlap]
    zero = torch.zeros(size, dtype=F64)
    distance = frechet_distance(gaussian(zero, one @ one.T), gaussian(zero, other @ other.T))
    assert distance == pytest.approx(2 * (5 - overlap), rel=1e-6, abs=1e-6)


def test_numerical_rank_is_judged_against_each_features_own_variance() -> None:
    scale = torch.tensor([1e-9, 1.0, 1e9, 1e-30, 0.0], dtype=F64)
    rows = normal(100, 5) * scale
    covariance = torch.cov(rows.T)
    found = cholesky_rows(covariance)
    assert len(found) == 4
    assert torch.allclose(found.T @ found, covariance, rtol=1e-12, atol=0)
    twice = torch.cat([rows[:, :3], rows[:, :3].flip(1)], 1)
    assert len(cholesky_rows(torch.cov(twice.T))) == 3
    assert len(cholesky_rows(torch.zeros(3, 3, dtype=F64))) == 0
    assert len(factor(Moments.of(3, torch.zeros(6, dtype=F64), torch.eye(6, dtype=F64)))) == 2  # three images span no more


@pytest.mark.parametrize("rest", [1e-6, 1e-9, 1e-12])
def test_a_small_variance_beside_a_large_one_counts(rest: float) -> None:
    """Features that agree but for `rest` against some that are opposite but for that: the eigenvalues 2 - rest and rest change places."""
    one, other = (torch.tensor([[1.0, sign * (1 - rest)], [sign * (1 - rest), 1]], dtype=F64) for sign in (1, -1))
    zero = torch.zeros(2, dtype=F64)
    expected = 2 * (math.sqrt(2 - rest) - math.sqrt(rest)) ** 2
    assert frechet_distance(gaussian(zero, one), gaussian(zero, other)) == pytest.approx(expected, rel=3e-5 * rest**0.5)


def test_a_covariance_that_rounding_made_indefinite() -> None:
    turn = rotation(30)
    covariance = (turn * torch.cat([torch.ones(10, dtype=F64), torch.full((20,), -1e-15, dtype=F64)])) @ turn.T
    covariance = (covariance + covariance.T) / 2
    assert torch.linalg.eigvalsh(covariance)[0] < 0
    zero = torch.zeros(30, dtype=F64)
    assert frechet_distance(gaussian(zero, covariance), gaussian(zero, torch.eye(30, dtype=F64))) == pytest.approx(20, rel=1e-6)


def steep(size: int, angle: Decimal, decay: int) -> tuple[Tensor, Tensor, float]:
    """Two covariances with eigenvalues 1, 1/2 and 10^-decay times these, and so on, the second's eigenvectors turned by a small `angle`.

    They are made of 2 x 2 blocks, whose distance has a closed form, tr S1 + tr S2 - 2 sqrt(tr S1 S2 + 2 sqrt(det S1 S2)), taken here
    with 60 digits; an orthogonal matrix of halves, which rounds nothing, then mixes all of it. Returns the distance, too.
    """
    with localcontext() as context:
        context.prec = 60
        one, other = torch.zeros(size, size, dtype=F64), torch.zeros(size, size, dtype=F64)
        total = Decimal(0)
        for block in range(size // 2):
            scale = Decimal(2) ** -(decay * block)
            tangent = 2 * angle / (1 + angle * angle), (1 - angle * angle) / (1 + angle * angle)
            s, c = (Decimal(float(x)) for x in tangent)
            first = [scale, Decimal(0), scale / 2]
            second = [scale * (c * c + s * s / 2), scale * s * c / 2, scale * (s * s + c * c / 2)]
            second = [Decimal(float(x)) for x in second]  # what float64 holds is what the distance is of
            for matrix, (a, b, d) in ((one, first), (other, second)):
                matrix[2 * block : 2 * block + 2, 2 * block : 2 * block + 2] = torch.tensor([[a, b], [b, d]], dtype=F64)
            product = first[0] * second[0] + first[2] * second[2]
            determinants = first[0] * first[2] * (second[0] * second[2] - second[1] ** 2)
            total += first[0] + first[2] + second[0] + second[2] - 2 * (product + 2 * determinants.sqrt()).sqrt()
        mix = torch.from_numpy(hadamard(size)).double() / math.sqrt(size)
        return mix @ one @ mix.T, mix @ other @ mix.T, float(total)


@pytest.mark.parametrize(("angle", "decay"), [("0.5", 1), ("0.01", 2), ("0.001", 2), ("0.01", 4)])
def test_small_distances_and_steep_spectra_keep_six_digits(angle: str, decay: int) -> None:
    one, other, expected = steep(16, Decimal(angle), decay)
    zero = torch.zeros(16, dtype=F64)
    assert expected > 1e-7
    assert frechet_distance(gaussian(zero, one), gaussian(zero, other)) == pytest.approx(expected, rel=1e-7)


def test_a_small_distance_that_the_fast_way_would_lose() -> None:
    """Deviations that fall over eight decades, and a hundredth of a percent more of each: (1e-4)^2 of the variance apart."""
    deviation = 10 ** -(torch.arange(200, dtype=F64) / 25)
    one, other = (rotation(200, seed) * spread for seed, spread in ((1, deviation), (2, deviation * (1 + 1e-4))))
    zero = torch.zeros(200, dtype=F64)
    expected = 1e-8 * float(deviation.square().sum())
    assert frechet.distance(zero, one, zero, other) == pytest.approx(expected, rel=1e-6)
    assert 2 * frechet._by_eigenvalues(one @ other.T)[1] > 1e-6 * expected


def test_the_fast_way_knows_when_it_is_not_good_enough() -> None:
    """Its estimate covers its error for spectra over 18 decades; where they fall little it is taken at its word."""
    for decay, good in ((0.0, True), (1.0, True), (6.0, False)):
        deviation = torch.arange(1, 201, dtype=F64) ** -decay
        product = rotation(200, 1) * deviation @ rotation(200, 2)
        total, error = frechet._by_eigenvalues(product)
        exact = float(deviation.sum())
        assert abs(total - exact) <= error + 1e-14 * exact
        assert (error < 1e-7 * exact) == good


@pytest.mark.parametrize(("counts", "dimensions"), [((10, 12), 64), ((10, 500), 64), ((64, 65), 64), ((2, 3), 200)])
def test_I1_fewer_images_than_dimensions(counts: tuple[int, int], dimensions: int) -> None:
    """Finite, and the value that the small side's Gram matrix gives; the same from saved statistics, which no longer have the rows."""
    rows = [features(count, dimensions, seed) for seed, count in enumerate(counts)]
    one, other = (moments(each) for each in rows)
    a, b = ((each.double() - each.double().mean(0)).numpy() / math.sqrt(len(each) - 1) for each in rows)
    means = rows[0].double().mean(0) - rows[1].double().mean(0)
    nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = float(means.square().sum()) + (a**2).sum() + (b**2).sum() - 2 * nuclear
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-12)
    assert len(factor(one)) == counts[0] - 1
    saved = (Moments.of(m.count, m.mean, m.scatter) for m in (one, other))
    assert frechet_distance(*saved) == pytest.approx(expected, rel=1e-9)


def test_I2_a_set_is_at_no_distance_from_itself_in_any_order() -> None:
    for count in (40, 3000):
        rows = features(count, 64)
        mixed = rows[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
        assert frechet_distance(moments(rows), moments(mixed)) == 0, "rounding is told as a distance"
        # Each image meets itself once among the N^2 pairs of the two sets, but never among the pairs within one: a little below 0.
        kernel = (rows.double() @ rows.double().T / 64 + 1) ** 3
        pairs = float(kernel.sum() - kernel.trace()) / (count * (count - 1))
        expected = 2 * (pairs - float(kernel.diagonal().mean())) / count
        assert kid.measure(evidence(rows, mixed), kid.Config(subset=count))["kid"] == pytest.approx(expected, rel=1e-6)
        drawn = kid.measure(evidence(rows, mixed), kid.Config(subset=20, subsets=200))
        assert abs(drawn["kid"] - expected) < 4 * drawn["kid_std"] / math.sqrt(200)


@pytest.mark.parametrize("counts", list(itertools.combinations_with_replacement([1, 2, 3, 100], 2)))
def test_I5_constant_images_and_single_images(counts: tuple[int, int]) -> None:
    """Without spread on one side, what remains are the means and the other side's variance."""
    flat, lively = torch.full((counts[0], 6), 0.1), features(counts[1], 6, seed=1)
    spread = float(lively.double().var(0).sum()) if counts[1] > 1 else 0.0
    apart = float((lively.double().mean(0) - flat[0].double()).square().sum())
    assert frechet_distance(moments(flat), moments(lively)) == pytest.approx(apart + spread, rel=1e-7)
    saved = [Moments.of(m.count, m.mean, m.scatter) for m in (moments(flat), moments(lively))]
    assert frechet_distance(*saved) == pytest.approx(apart + spread, rel=1e-7)
    assert frechet_distance(moments(flat), moments(flat + 1)) == pytest.approx(6, rel=1e-6)
    assert frechet_distance(moments(flat), moments(flat)) == 0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match="0 and 3 images"):
        frechet_distance(Moments(4), moments(features(3, 4)))
    with pytest.raises(UserError, match="4 and of 5 dimensions"):
        frechet_distance(moments(features(3, 4)), moments(features(3, 5)))


# ---- the metrics against torch-fidelity ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sides() -> tuple[Tensor, Tensor]:
    return features(700, 64), features(600, 64, seed=1)


def test_fid_is_torch_fidelitys(sides: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    for count in (600, 40):
        real, generated = (side[:count] for side in sides)
        theirs = fid_statistics_to_metric(fid_features_to_statistics(generated), fid_features_to_statistics(real), False)
        mine = fid.measure(evidence(real, generated), fid.Config())
        assert mine == {"fid": pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)}


def test_kid_is_torch_fidelitys(sides: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric

    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    real, generated = (side[:600] for side in sides)
    for x, y in zip(real.split(200), generated.split(200), strict=True):
        theirs = kernel_mmd(x.double().numpy(), y.double().numpy(), **options)
        assert kid.polynomial_mmd(x, y) == pytest.approx(theirs, rel=1e-10)
    # With subsets of all images there is nothing to draw.
    theirs = kid_features_to_metric(generated, real, kid_subsets=2, kid_subset_size=600, rng_seed=0, verbose=False, **options)
    mine = kid.measure(evidence(real, generated), kid.Config(subset=600, subsets=2))
    assert mine == {"kid": pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4), "kid_std": 0}


def test_inception_score_is_torch_fidelitys(sides: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * sides[0][:, :10]
    for splits in (1, 7, 10):
        theirs = isc_features_to_metric(logits, splits=splits, shuffle=False)
        mine = inception_score.measure(evidence(logits, logits), inception_score.Config(splits=splits, shuffle=False))
        assert mine["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
        assert mine["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-12)


def test_precision_and_recall_are_torch_fidelitys(sides: tuple[Tensor, Tensor]) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, generated = sides
    for k in (1, 3):
        theirs = prc_features_to_metric(generated, real, prc_neighborhood=k, prc_batch_size=256, save_cpu_ram=True, verbose=False)
        mine = prdc.measure(evidence(real, generated), prdc.Config(k=k))
        assert 0.05 < theirs["precision"] < 0.95 and 0.05 < theirs["recall"] < 0.95
        assert mine["precision"] == pytest.approx(theirs["precision"], rel=1e-4)
        assert mine["recall"] == pytest.approx(theirs["recall"], rel=1e-4)


# ---- kernel distance -----------------------------------------------------------------------------------------------------------------


def test_kid_by_its_definition() -> None:
    x, y = normal(4, 3, seed=1), normal(5, 3, seed=2) + 1

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within = [sum(kernel(a, b) for a, b in itertools.permutations(side, 2)) / (len(side) * (len(side) - 1)) for side in (x, y)]
    across = sum(kernel(a, b) for a in x for b in y) / 20
    assert kid.polynomial_mmd(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_kid_is_unbiased() -> None:
    """Samples of one distribution are at distance 0 on average, however few, where the biased estimate is far above."""
    pairs = [(normal(5, 4, seed=2 * n), normal(5, 4, seed=2 * n + 1)) for n in range(2000)]
    values = [kid.polynomial_mmd(x, y) for x, y in pairs]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(2000) < 0.2
    biased = [sum(sign * float(((a @ b.T / 4 + 1) ** 3).mean()) for sign, a, b in ((1, x, x), (1, y, y), (-2, x, y))) for x, y in pairs]
    assert np.mean(biased) > 2


def test_kid_subsets_come_from_the_seed_and_repeat_no_image() -> None:
    real, generated = features(60, 8), features(50, 8, seed=1)
    config = kid.Config(subset=25, subsets=10)
    first, again, other = (kid.measure(evidence(real, generated, seed), config) for seed in (1, 1, 2))
    assert first == again and first != other
    assert first["kid_std"] > 0
    more = kid.measure(evidence(real, generated, 1), kid.Config(subset=25, subsets=400))
    whole = kid.measure(evidence(real[:50], generated, 1), kid.Config(subset=50))
    assert more["kid"] == pytest.approx(whole["kid"], rel=0.2)


@pytest.mark.parametrize(("counts", "fix"), [((1500, 30), "--set kid.subset=30"), ((40, 2000), "--set kid.subset=40")])
def test_I4_kid_subset_larger_than_a_side(counts: tuple[int, int], fix: str) -> None:
    with pytest.raises(UserError) as caught:
        kid.measure(evidence(*(features(count, 3) for count in counts)), kid.Config())
    assert "1,000" in caught.value.what and all(f"{count:,}" in caught.value.what for count in counts)
    assert fix in caught.value.fix


# ---- inception score -----------------------------------------------------------------------------------------------------------------


def score(logits: Tensor, **options: Any) -> float:
    return inception_score.measure(evidence(logits, logits), inception_score.Config(**options))["inception_score"]


def test_inception_score_by_hand() -> None:
    assert score(torch.zeros(20, 4)) == pytest.approx(1, rel=1e-12)
    sure = torch.eye(4).repeat(5, 1) * 1e4  # probabilities that are 0 and 1 to the last bit
    assert score(sure, splits=1) == pytest.approx(4, rel=1e-12)
    assert score(sure[:10], splits=1) == pytest.approx(math.exp(-0.6 * math.log(0.3) - 0.4 * math.log(0.2)), rel=1e-12)
    assert score(torch.eye(4)[:1].repeat(20, 1) * 1e30) == pytest.approx(1, rel=1e-12)  # three classes that no image has
    half = torch.log(torch.tensor([[0.9, 0.1], [0.3, 0.7]]))
    kl = [p * math.log(p / q) for row in ((0.9, 0.1), (0.3, 0.7)) for p, q in zip(row, (0.6, 0.4), strict=True)]
    assert score(half, splits=1) == pytest.approx(math.exp(sum(kl) / 2), rel=1e-6)


def test_inception_score_of_a_folder_sorted_by_class() -> None:
    in_order = torch.eye(5).repeat_interleave(100, 0) * 50
    assert score(in_order, splits=5, shuffle=False) == pytest.approx(1)
    assert score(in_order, splits=5) > 4.5


def test_I5_inception_score_needs_an_image_for_every_split() -> None:
    with pytest.raises(UserError, match="10 splits are more than the 1 ") as caught:
        score(torch.zeros(1, 4))
    assert "--set inception-score.splits=1" in caught.value.fix
    assert score(torch.zeros(1, 4), splits=1) == 1


def test_the_inception_score_of_real_images_where_they_were_looked_at() -> None:
    sure, unsure = torch.eye(4).repeat(5, 1) * 1e4, torch.zeros(30, 4)
    found = inception_score.measure(evidence(sure, unsure), inception_score.Config(splits=1))
    assert (found["inception_score"], found["real_inception_score"]) == (pytest.approx(1), pytest.approx(4))
    for real in (None, Collected(9), Collected(9, logits=sure[:9])):
        found = inception_score.measure(Evidence(real, Collected(30, logits=unsure)), inception_score.Config())
        assert set(found) == {"inception_score", "inception_score_std"}


# ---- diversity within classes --------------------------------------------------------------------------------------------------------


def of_classes(features: list[list[float]], labels: list[int] | None) -> Collected:
    return Collected(len(features), features=torch.tensor(features), labels=None if labels is None else torch.tensor(labels))


def test_class_diversity_by_hand() -> None:
    """Class 0 lies at 0, 3, 6: mean distance 4. Class 1 at 100 and 102: 2. Class 2 has one image, which has no pair."""
    points, labels = [[0.0], [100.0], [3.0], [102.0], [6.0], [50.0]], [0, 1, 0, 1, 0, 2]
    real, generated = of_classes(points, labels), of_classes([[1.0], [2.5], [7.0], [7.0]], [0, 0, 1, 1])
    found = class_diversity.measure(Evidence(real, generated), class_diversity.Config())
    assert found == {"class_diversity": 0.75, "class_diversity_real": 3.0, "class_diversity_ratio": 0.25}
    unlabelled = class_diversity.measure(Evidence(of_classes(points, None), generated), class_diversity.Config())
    assert unlabelled == {"class_diversity": 0.75}
    with pytest.raises(UserError, match="no class has two samples"):
        class_diversity.measure(Evidence(real, of_classes([[1.0], [2.0]], [0, 1])), class_diversity.Config())


# ---- class balance -------------------------------------------------------------------------------------------------------------------


def test_class_balance_by_hand() -> None:
    """Of 40 samples 20, 19 and 1 are taken for three of four classes, which are equally frequent among real images, or not."""
    taken = torch.tensor([0] * 20 + [1] * 19 + [3])
    found = class_balance.measure(evidence(torch.eye(4).repeat(3, 1), torch.eye(4)[taken] * 3), class_balance.Config())
    apart = pytest.approx((0.25 + 0.225 + 0.25 + 0.225) / 2)
    assert found == {"classes_seen": 3.0, "real_classes_seen": 4.0, "total_variation": apart}
    few = class_balance.measure(evidence(torch.eye(4), torch.eye(4)[[0] * 60 + [2]]), class_balance.Config())
    assert few["classes_seen"] == 1
    rare = torch.eye(4)[torch.tensor([0] * 10 + [1] * 9 + [3])]  # nearly the samples' frequencies; no image of class 2
    found = class_balance.measure(evidence(rare, torch.eye(4)[taken]), class_balance.Config())
    assert found == {"classes_seen": 3.0, "real_classes_seen": 3.0, "total_variation": pytest.approx(0.025)}


# ---- neighbours ----------------------------------------------------------------------------------------------------------------------


def by_definition(real: list[tuple[int, ...]], generated: list[tuple[int, ...]], k: int) -> dict[str, float]:
    """PRDC in integers, with loops, as the papers write it."""

    def squared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        return sum((i - j) ** 2 for i, j in zip(a, b, strict=True))

    def radii(side: list[tuple[int, ...]]) -> list[int]:
        return [sorted(squared(a, b) for j, b in enumerate(side) if j != i)[k - 1] for i, a in enumerate(side)]

    inside = [[squared(x, y) <= radius for y in generated] for x, radius in zip(real, radii(real), strict=True)]
    within = [[squared(x, y) <= radius for y, radius in zip(generated, radii(generated), strict=True)] for x in real]
    return {
        "precision": sum(any(ball[j] for ball in inside) for j in range(len(generated))) / len(generated),
        "recall": sum(map(any, within)) / len(real),
        "density": sum(map(sum, inside)) / (k * len(generated)),
        "coverage": sum(map(any, inside)) / len(real),
    }


def test_prdc_by_hand() -> None:
    """Real 0, 1, 3, 10 have balls of 1, 1, 2 and 7; of the generated 2, 4 and 20 the first lies in two of them, the second in one."""
    real, generated = torch.tensor([[0.0], [1], [3], [10]]), torch.tensor([[2.0], [4], [20]])
    # Balls: [-1, 1], [0, 2], [1, 5], [3, 17]. 2 lies in two, 4 in two, 20 in none. Generated balls: [0, 4], [2, 6], [4, 36].
    found = prdc.measure(evidence(real, generated), prdc.Config(k=1))
    assert found == pytest.approx({"precision": 2 / 3, "recall": 1, "density": 4 / 3, "coverage": 3 / 4})
    assert found == pytest.approx(by_definition([(0,), (1,), (3,), (10,)], [(2,), (4,), (20,)], 1))


@pytest.mark.parametrize("block", [3, 16, 1024])
@pytest.mark.parametrize("offset", [0, 3000])
def test_prdc_is_exact_where_points_coincide_and_lie_on_rims(block: int, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    dice = np.random.default_rng(0)
    for k, high in ((1, 4), (3, 3), (5, 8)):
        real, generated = (dice.integers(0, high, (count, 3)) for count in (40, 33))
        sides = [[tuple(map(int, row)) for row in side] for side in (real, generated)]
        expected = by_definition(sides[0], sides[1], k)
        found = prdc.manifolds(*(torch.from_numpy(side + offset).float() / 8 for side in (real, generated)), k)
        assert found == pytest.approx(expected, rel=1e-12)


def test_I5_prdc_of_constant_images_and_of_too_few() -> None:
    same = torch.full((8, 4), 0.1)
    assert prdc.manifolds(same, same, 3) == {"precision": 1, "recall": 1, "density": 8 / 3, "coverage": 1}
    assert prdc.manifolds(same, same + 1, 3) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    with pytest.raises(UserError, match="4 real and 8 generated") as caught:
        prdc.measure(evidence(same[:4], same), prdc.Config())
    assert "--set prdc.k=3" in caught.value.fix


def test_neighbours_and_distances_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = features(150, 20)
    matrix = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    for block in (7, 50, 1024):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        for k in (1, 4, 149):
            found = neighbours.kth_neighbour(neighbours.Points(rows), k)
            assert torch.allclose(found.sqrt(), matrix.kthvalue(k + 1).values, rtol=1e-12)
        mean = neighbours.mean_distance(neighbours.Points(rows))
        assert mean == pytest.approx(float(matrix.sum()) / (150 * 149), rel=1e-12)
    with pytest.raises(ValueError):
        neighbours.kth_neighbour(neighbours.Points(rows), 150)


def grown(count: int) -> int:
    """By how many bytes the process's peak grows while it looks at the neighbours of `count` points."""
    rows = features(count, 4)
    neighbours.kth_neighbour(neighbours.Points(rows[:2048]), 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prdc.manifolds(rows, features(count, 4, seed=1), 5)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def test_neighbours_need_no_memory_of_size_n_by_n() -> None:
    assert support.call(grown, 16_000) < 16_000**2  # an N x N matrix of single bytes


# ---- diversity and sharpness ---------------------------------------------------------------------------------------------------------


def test_diversity_by_hand() -> None:
    real, generated = torch.tensor([[0.0, 5], [0, 6], [0, 8]]), torch.tensor([[1.0, 1], [1, 1]])
    found = diversity.measure(evidence(real, torch.cat([generated, generated + 3])), diversity.Config())
    assert found == pytest.approx({"diversity": 4 * math.sqrt(18) / 6, "diversity_real": 2, "diversity_ratio": 2 * math.sqrt(18) / 6})
    same = diversity.measure(evidence(generated, generated), diversity.Config())
    assert same == {"diversity": 0, "diversity_real": 0}
    with pytest.raises(UserError, match="3 real and 1 generated"):
        diversity.measure(evidence(real, generated[:1]), diversity.Config())


def test_copying_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 2)
    training = torch.tensor([[0.0, 0], [10, 0], [-10, 24]])
    held_out = torch.tensor([[0.0, 1], [10, 3]])  # at distances 1 and 3
    found = copying.copying(training, torch.tensor([[2.0, 0], [10, 0], [-10, 29], [9, 0]]), held_out)  # 2, 0, 5, and 1: a tie
    assert found == pytest.approx({"copying": (1 + 2 + 0 + 1.5) / 8, "nearest": 2, "nearest_real": 2})
    distance, which = copying.nearest(training, held_out.flip(0))
    assert distance == pytest.approx([3, 1]) and which.tolist() == [1, 0]
    assert copying.copying(training, training, held_out)["copying"] == 1
    assert copying.copying(training, training + 100, held_out)["copying"] == 0
    rows = features(300, 8)
    assert copying.copying(rows[:100], rows[100:200], rows[200:])["copying"] == pytest.approx(0.5, abs=0.1)


def test_sharpness_by_hand() -> None:
    """A white point on black: the filter gives -4 once and 1 four times among 9 values, a variance of 20 / 9."""
    point = np.zeros((5, 5, 1), np.uint8)
    point[2, 2] = 255
    grey, wide = np.repeat(point, 3, 2), np.pad(point, ((0, 0), (0, 3), (0, 0)))
    flat, ramp = np.full((6, 9, 3), (7, 90, 201), np.uint8), np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    green = np.zeros((5, 5, 3), np.uint8)
    green[2, 2, 1] = 255
    found = sharpness.laplacian_variance([point, grey, wide, flat, ramp, point[:2], green])
    assert found == pytest.approx([20 / 9, 20 / 9, 20 / 18, 0, 0, 0, 20 / 9 * 0.587**2], abs=1e-12)
    assert sharpness.laplacian_variance([]).shape == (0,)


def test_blur_lowers_sharpness() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    blurred = ((noise.astype(int) + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) // 3).astype(np.uint8)
    sharp, soft = sharpness.laplacian_variance([noise, blurred])
    assert soft < sharp / 3
    e = Evidence(Collected(1, sharpness=float(sharp)), Collected(1, sharpness=float(soft)))
    found = sharpness.measure(e, sharpness.Config())
    assert found == {"sharpness": soft, "sharpness_real": sharp, "sharpness_ratio": soft / sharp}
    flat = Evidence(Collected(1, sharpness=0.0), Collected(1, sharpness=1.0))
    assert sharpness.measure(flat, sharpness.Config()) == {"sharpness": 1, "sharpness_real": 0}


def test_a_metric_that_forgot_a_need_is_told_which() -> None:
    with pytest.raises(ContractError, match=r"real\.moments"):
        fid.measure(Evidence(None, Collected(1)), fid.Config())


@pytest.mark.parametrize("metric", [fid, kid, inception_score, prdc, diversity])
def test_results_are_plain_finite_numbers(metric: Any) -> None:
    options = {"subset": 100} if metric is kid else {}
    values = metric.measure(evidence(features(150, 12), features(160, 12, seed=1)), metric.Config(**options))
    assert all(type(value) is float and math.isfinite(value) for value in values.values())
    json.dumps(values, allow_nan=False)


# ---- statistics files ----------------------------------------------------------------------------------------------------------------

RECIPE = {"features": {"name": "inception", "digest": "ab" * 32}, "resize": "tensorflow", "size": (299, 299), "fold": True}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = files.Statistics(moments(features(30, 6)), RECIPE, "a folder")
    return files.save(made, tmp_path / "saved.safetensors")


def test_statistics_survive_to_the_last_bit(saved: Path) -> None:
    found, made = files.read(saved), moments(features(30, 6))
    assert (found.moments.count, found.source) == (30, "a folder")
    assert torch.equal(found.moments.mean, made.mean) and torch.equal(found.moments.scatter, made.scatter)
    again = files.save(found, saved.with_name("again.safetensors"))
    assert load_file(again).keys() == load_file(saved).keys()
    assert files.is_statistics(saved)
    files.compare_recipes(found, files.Statistics(made, RECIPE, "here"))
    assert frechet_distance(found.moments, made) < 1e-12


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    for position in range(0, len(content), 3):
        saved.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(UserError) as caught:
            files.read(saved)
        assert str(saved) in str(caught.value) and caught.value.fix
    for cut in (0, 4, 100, len(content) - 1):
        saved.write_bytes(content[:cut])
        with pytest.raises(UserError, match="damaged"):
            files.read(saved)
    saved.write_bytes(content + b"\0")
    with pytest.raises(UserError, match="damaged"):
        files.read(saved)


def forge(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Path:
    """A statistics file with a valid digest over changed content."""
    tensors = {"mean": torch.zeros(3, dtype=F64), "scatter": torch.eye(3, dtype=F64)}
    metadata = {"kind": files.KIND, "format": "1", "lgm": "9", "count": "5", "source": "x", "recipe": "{}"}
    change(tensors, metadata)
    metadata["digest"] = files._digest(metadata, tensors)
    save_file(tensors, path, metadata)
    return path


def put(name: str, place: tuple[int, ...], value: float) -> Callable[[dict[str, Tensor], dict[str, str]], None]:
    return lambda tensors, metadata: tensors[name].__setitem__(place, value)


def write(**values: str) -> Callable[[dict[str, Tensor], dict[str, str]], None]:
    return lambda tensors, metadata: metadata.update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("mean", (0,), math.nan), "not finite"),
        (put("scatter", (1, 1), math.inf), "not finite"),
        (put("scatter", (0, 1), 0.5), "not symmetric"),
        (put("scatter", (2, 2), -1), "negative"),
        (write(count="0"), "count"),
        (write(count="many"), "ValueError"),
        (write(recipe="[]"), "recipe"),
        (write(recipe='{"a": NaN}'), "ValueError"),
        (write(recipe="[" * 100_000), "RecursionError"),
        (write(format="7"), "written by lgm 9 in format 7"),
        (write(kind="other"), "not a statistics file"),
        (lambda tensors, metadata: tensors.update(mean=torch.zeros(4, dtype=F64)), "its tensors are"),
        (lambda tensors, metadata: tensors.update(mean=torch.zeros(3)), "its tensors are"),
        (lambda tensors, metadata: tensors.update(mean=torch.zeros((), dtype=F64)), "its tensors are"),
        (lambda tensors, metadata: tensors.update(more=torch.zeros(3)), "its tensors are"),
        (lambda tensors, metadata: tensors.pop("scatter"), "its tensors are"),
        (lambda tensors, metadata: metadata.pop("source"), "KeyError"),
    ],
)
def test_forged_statistics_are_refused(change: Callable[..., None], words: str, tmp_path: Path) -> None:
    path = forge(tmp_path / "forged.safetensors", change)
    with pytest.raises(UserError, match=words) as caught:
        files.read(path)
    assert str(path) in str(caught.value) and caught.value.fix


class Canary:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_other_files_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    import pickle

    canary = tmp_path / "hatched"
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.save(tmp_path / "a.npy", np.array([Canary(canary)], dtype=object), allow_pickle=True)
    torch.save(Canary(canary), tmp_path / "a.pt")
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(Canary(canary)))
    save_file({"model/x": torch.zeros(2)}, tmp_path / "checkpoint.safetensors", {"model": "vae", "format": "1"})
    (tmp_path / "a.txt").write_text("mean: 3")
    os.mkfifo(tmp_path / "pipe")
    words = {
        "a.npz": "never unpickles",
        "a.npy": "never unpickles",
        "a.pt": "never unpickles",
        "a.safetensors": "never unpickles",
        "checkpoint.safetensors": "a checkpoint",
        "a.txt": "not a statistics file",
        "pipe": "not a regular file",
        ".": "not a regular file",
        "nowhere": "no such file",
    }
    for name, text in words.items():
        assert not files.is_statistics(tmp_path / name)
        with pytest.raises(UserError, match=text) as caught:
            files.read(tmp_path / name)
        assert "--save-stats" in caught.value.fix or "images" in caught.value.fix
    assert not canary.exists()
    assert not files.is_statistics("a\0b")


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        files.save(files.Statistics(moments(features(9, 6)), {}, "other"), saved)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


def test_different_recipes_are_told_apart_field_by_field(saved: Path) -> None:
    found = files.read(saved)
    features_recipe = {"name": "inception", "digest": "cd" * 32}
    other = files.Statistics(found.moments, {**RECIPE, "features": features_recipe, "fold": 1, "precision": "bf16"}, "mine")
    with pytest.raises(UserError) as caught:
        files.compare_recipes(found, other)
    text = str(caught.value)
    for word in ("features.digest", "abab", "cdcd", "precision is absent", "bf16", "fold is true and 1", "a folder and mine"):
        assert word in text
    assert "resize" not in text and "features.name" not in text and "size" not in text
