"""Where lgm computes, and how: exact or fast arithmetic, and how many images together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
import torch

from models import device
from models.device import block_of, choose_arithmetic, environment, ill_advised
from models.training import checkpoint, events

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def chosen() -> dict[str, bool]:
    """What torch is set to."""
    return {
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "tf32 in convolutions": torch.backends.cudnn.allow_tf32,
        "search": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filled": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "threads of the device": torch.autograd.is_multithreading_enabled(),
    }


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = chosen()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.backends.cuda.matmul.allow_tf32 = before["tf32"]
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before["tf32 in convolutions"], before["search"]
    torch.use_deterministic_algorithms(before["deterministic"])
    torch.utils.deterministic.fill_uninitialized_memory = before["filled"]  # type: ignore[attr-defined]
    torch.autograd.set_multithreading_enabled(before["threads of the device"])


@pytest.mark.usefixtures("put_back")
def test_arithmetic_of_a_gpu() -> None:
    """Set without one at hand; what a GPU makes of it is tried on a GPU alone."""
    choose_arithmetic(GPU)
    exact = {"tf32": False, "tf32 in convolutions": False, "search": False, "deterministic": True, "filled": False}
    assert chosen() == {**exact, "threads of the device": False}
    choose_arithmetic(GPU, fast=True)
    fast = {"tf32": True, "tf32 in convolutions": True, "search": True, "deterministic": False, "filled": False}
    assert chosen() == {**fast, "threads of the device": True}


def test_a_cpu_has_one_arithmetic() -> None:
    before = chosen()
    for fast in (True, False):
        choose_arithmetic(CPU, fast)
        assert chosen() == before
    assert environment(CPU, 1, fast=True)["arithmetic"] == "exact"
    assert "changes nothing" in ill_advised(CPU, "fp32", fast=True)[0]
    assert not ill_advised(CPU, "fp32")


@pytest.mark.parametrize(("half", "said"), [(50.0, True), (99.0, False), (200.0, False)])
def test_half_precision_that_is_slower_is_said(half: float, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(device, "matrix_rate", lambda dtype: half if dtype == torch.bfloat16 else 100.0)
    warnings = ill_advised(CPU, "bf16")
    assert bool(warnings) == said
    assert not said or "50 GFLOP/s" in warnings[0]
    assert not ill_advised(GPU, "bf16")


def test_rates_of_matrices_are_plausible() -> None:
    assert 0.05 < device.matrix_rate(torch.float32, 128) < 1e5


def test_fast_is_recorded_and_may_change(pictures: Path, straight: Callable[[str], Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    happened = support.call(support.train, "vae", str(pictures), str(run), support.tiny("vae", fast=True))
    assert any("--fast" in e.message for e in happened if isinstance(e, events.Warned))
    assert checkpoint.read_header(support.newest(run)).config.fast
    support.assert_same_tensors(support.newest(run), support.newest(straight("vae")))
    assert isinstance(support.call(support.resume, str(run), {"fast": False})[-1], events.Finished)


def test_a_gpu_makes_more_images_together() -> None:
    assert block_of(GPU) > block_of(CPU)
