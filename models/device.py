"""Choosing where to compute."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import UserError


def available() -> list[str]:
    """The devices of this machine, best first: ``["cuda:0", "cuda:1", "cpu"]``."""
    cuda = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick(name: str | None) -> torch.device:
    """`auto` (or None), `cpu`, `cuda`, `cuda:1` or `mps` as a device. There is no silent fall-back: UserError lists what there is.

    Under torchrun, `cuda` is the local rank's own GPU.
    """
    found = available()
    if name in (None, "auto"):
        name = found[0].partition(":")[0]
    if name == "cuda" and "cuda:0" in found:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if name not in found:
        raise UserError(f"there is no device {name!r} on this machine", "--device", f"use one of: auto, {', '.join(found)}")
    return torch.device(name)


def compile_networks(model: nn.Module, device: torch.device, backend: str = "inductor") -> None:
    """Compile the model's networks, in place, at their first call. Raises UserError where the CPU's code would find no C++ compiler."""
    compilers = map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++", "c++", "cl"))
    if backend == "inductor" and device.type == "cpu" and not any(compilers):
        raise UserError("compiling for the CPU needs a C++ compiler", "--compile", "install g++ or clang++, or leave --compile out")
    from torch._functorch import config

    config.donated_buffer = False  # players who share a graph go through it backwards one after the other
    for child in model.children():
        for network in (child, *child.children()):  # a model may call a part of a network, such as an encoder's trunk
            network.compile(backend=backend)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """While it lasts, networks compute in `precision`, fp32 or bf16."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def ill_advised(device: torch.device, precision: str, fast: bool = False) -> tuple[str, ...]:
    """Warnings for a processor where half precision costs time, and where there is no faster arithmetic.

    Processors without instructions for bf16 took ten times as long (a VAE at 28x28, AVX2); some that have them are slower all the same (an
    auto-encoder at 64x64 0.65 times as fast, AVX-512 without AMX), so a product of matrices is timed: a few hundredths of a second.
    """
    if device.type != "cpu":
        return ()
    found = ("--fast changes nothing on a CPU",) if fast else ()
    if precision != "bf16" or not torch.backends.mkldnn.is_available():
        return found
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return (*found, "this processor has no instructions for bf16, which will be many times slower here than --precision fp32")
    half, full = matrix_rate(torch.bfloat16), matrix_rate(torch.float32)
    if half >= 0.8 * full:
        return found
    return (
        *found,
        f"this processor is slower in bf16 ({half:.0f} GFLOP/s) than in fp32 ({full:.0f}): --precision fp32 is the better choice here",
    )


def matrix_rate(dtype: torch.dtype, size: int = 512) -> float:
    """GFLOP/s of a product of two matrices on the CPU, the best of five."""
    a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):  # the first one prepares
        begin = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds[1:]) / 1e9


@contextmanager
def full_precision() -> Iterator[None]:
    """While it lasts, a GPU computes float32 convolutions and matrix products in float32; the TF32 that it may take costs three digits."""
    products = torch.backends.cuda.matmul.allow_tf32
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = products


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`. The way to a GPU leads through pinned memory, so that nobody waits for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def block_of(device: torch.device) -> int:
    """How many images are made together on `device`. Results depend on it by rounding, so it stands in the recipe of what is measured.

    Small on a CPU, where a block of large images should stay in the cache; a GPU wants more to do at a time.
    """
    return 64 if device.type == "cuda" else 16


def room_for_data(device: torch.device) -> int:
    """How many bytes a field of a data set may take on `device` to be kept there while a run lasts: a quarter of what a GPU has free."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 0


def settle(device: torch.device, fast: bool = False) -> None:
    """Prepare this process for training on `device`: its arithmetic (`choose_arithmetic`), and its memory.

    On a CPU, Linux with glibc: temporaries of many megabytes are mapped and unmapped at every step, and the kernel clears each page anew;
    asking the allocator to keep them saved about a fifth of a 64x64 auto-encoder's step. The process then holds on to its largest memory.
    """
    choose_arithmetic(device, fast)
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    try:
        allocator = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    allocator(mmap_max, 0)
    allocator(trim_threshold, 2**31 - 1)
    allocator(top_pad, 64 * 2**20)


@contextmanager
def arithmetic(device: torch.device, fast: bool) -> Iterator[None]:
    """`choose_arithmetic` while it lasts, for a trained model that is asked beside others."""
    if device.type != "cuda":
        yield
        return
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32, torch.are_deterministic_algorithms_enabled()
    threads = torch.autograd.is_multithreading_enabled()
    choose_arithmetic(device, fast)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32 = before[:3]
        torch.use_deterministic_algorithms(before[3], warn_only=True)
        torch.autograd.set_multithreading_enabled(threads)


def choose_arithmetic(device: torch.device, fast: bool = False) -> None:
    """How a GPU computes in this process from now on; a CPU has one way only.

    Exact: deterministic algorithms, without which a resumed run would not end with the same bits; float32 products in float32; and
    gradients are taken in this thread. In one of the device's, as torch does it by itself, second derivatives (of a penalty) are numbered
    apart from the rest of the graph, and the order in which a weight's gradients are added up then depends on how long the process has
    been running. Fast: TF32, which keeps three digits of a product, and the kernels that cuDNN finds to be the quickest.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = fast
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = fast
    torch.use_deterministic_algorithms(not fast, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads what was not written
    torch.autograd.set_multithreading_enabled(fast)
    if torch.cuda.is_available():
        torch.cuda.set_device(device.index or 0)


def environment(device: torch.device, world: int, fast: bool = False) -> dict[str, Any]:
    """What bit-exact resume depends on beside the checkpoint; `world` is the number of processes that train together."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "arithmetic": "fast" if fast and device.type == "cuda" else "exact",
        "machine": platform.machine(),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "world": world,
    }
