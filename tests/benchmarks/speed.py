"""Training speed as ratios in one run: lgm's loop against a plain textbook loop on the same networks.

    python tests/benchmarks/speed.py [--seconds 40] [--only autoencoder64] [--threads 2] [--device cuda]

The textbook loop is what tutorials show: contiguous NCHW float32 tensors through a DataLoader whose data set (torchvision's MNIST for the
small images) transforms each image when it is asked for, the loss as pytorch/examples writes it, `torch.optim.Adam` as it comes,
`loss.item()` every step. lgm runs its own training loop, whole, as `lgm train` does. Both train the same networks; no moving average.
On a GPU the textbook loop has what tutorials have there: 4 workers and pinned memory, channels_last, and automatic mixed precision in bf16.

They take turns in short slices, each in a process of its own; the ratio of the median speeds is printed, with the machine's matrix-product
rate, what each loop computes for an image, and the fraction of that rate that it reaches.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

SLICES, IMAGES, ENDLESS = 5, 4096, 10**11
CLASSES = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class Contender:
    """Who runs: `textbook` or `lgm`, or a `translator` between two of the model; in which precision, and in which stage of the model."""

    who: str
    precision: str = "fp32"
    stage: int = 0

    def __str__(self) -> str:
        return f"{self.who} {self.precision}" + (f" stage {self.stage + 1}" if self.stage else "")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, as options of a zoo model, and what is promised: (contender, rival, least ratio)."""

    name: str
    model: str
    options: dict[str, Any]
    shape: tuple[int, int, int]  # (height, width, channels)
    batch: int
    promises: tuple[tuple[Contender, Contender, float], ...]


TEXTBOOK, TEXTBOOK_BF16, FP32, BF16 = Contender("textbook"), Contender("textbook", "bf16"), Contender("lgm"), Contender("lgm", "bf16")
SECOND = Contender("lgm", stage=1)
TRANSLATOR, TRANSLATOR_BF16 = Contender("translator"), Contender("translator", "bf16")
AUTOENCODER = {"widths": (64, 128, 256, 512), "components": False}
CONV = {"widths": (16, 32), "latent": 16, "components": False}
MLP = {"network": "mlp", "widths": (500,), "latent": 20, "likelihood": "bernoulli"}
CASES = (
    Case("autoencoder64", "aegan", AUTOENCODER, (64, 64, 3), 128, ((FP32, TEXTBOOK, 1.5), (BF16, TEXTBOOK, 2.5))),
    Case("dcgan64", "dcgan", {}, (64, 64, 3), 64, ((FP32, TEXTBOOK, 1.5), (BF16, TEXTBOOK, 2.5))),
    Case("mlp28", "vae", MLP | {"widths": (128,)}, (28, 28, 1), 128, ((FP32, TEXTBOOK, 4.0), (BF16, TEXTBOOK, 4.0))),
    Case("mlp28-paper", "vae", MLP, (28, 28, 1), 100, ((FP32, TEXTBOOK, 4.0), (BF16, TEXTBOOK, 4.0))),
    Case("conv28", "vae", CONV, (28, 28, 1), 128, ((FP32, TEXTBOOK, 4.0), (BF16, TEXTBOOK, 4.0))),
    Case("aegan64", "aegan", AUTOENCODER, (64, 64, 3), 128, ((SECOND, FP32, 20.0),)),
    Case("translator28", "vae", {}, (28, 28, 1), 128, ((TRANSLATOR, FP32, 20.0), (TRANSLATOR_BF16, BF16, 20.0))),
    Case("translator64", "vae", {}, (64, 64, 3), 128, ((TRANSLATOR, FP32, 20.0), (TRANSLATOR_BF16, BF16, 20.0))),
)


def pictures(shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth random images, uint8 (IMAGES, H, W, C)."""
    from PIL import Image

    height, width, channels = shape
    small = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, channels), dtype=np.uint8)
    drawn = [Image.fromarray(s.squeeze(-1) if channels == 1 else s).resize((width, height)) for s in small]
    return np.stack([np.asarray(image) for image in drawn]).reshape(-1, *shape)


def build(case: Case, memory_format: Any, stage: int = 0) -> Any:
    """The case's model; for its second stage one that has the first behind it, because it is built around a trained base."""
    import torch

    from models.base import DataSpec
    from models.config import check
    from models.registry import model_class

    height, width, channels = case.shape
    cls = model_class(case.model)
    torch.manual_seed(0)
    config, spec = check(cls.Config, case.options, case.name), DataSpec.of_images(channels, height, width)
    model = cls(config, spec, {"base": cls(config, spec).requires_grad_(False).eval()}) if stage else cls(config, spec)
    return model.to(memory_format=memory_format)


def build_translator(case: Case) -> Any:
    """A cross-domain between two of the case's model."""
    import torch

    from models.base import DataSpec
    from models.config import check
    from models.registry import model_class

    height, width, channels = case.shape
    spec, cls = DataSpec.of_images(channels, height, width, classes=CLASSES), model_class("cross-domain")
    parts = {name: build(case, torch.channels_last).requires_grad_(False).eval() for name in cls.sources}
    return cls(check(cls.Config, {}, case.name), dataclasses.replace(spec, others={"to": spec}), parts)


def textbook(case: Case, precision: str, device: Any) -> Iterator[int]:
    """One plain training step after another; yields the images of each."""
    import torch
    from torchvision import transforms

    channels = case.shape[2]
    gpu = device.type == "cuda"
    memory_format = torch.channels_last if gpu else torch.contiguous_format
    model = build(case, memory_format).to(device)
    plain_layers(model)
    for network in model.children():
        for part in (network, getattr(network, "trunk", None)):  # a VAE calls its encoder's trunk
            if part is not None:
                part.forward = mixed(part.forward, device, precision)
    step = textbook_gan(model) if case.model == "dcgan" else textbook_alone(model)
    normal = transforms.Normalize([0.5] * channels, [0.5] * channels)
    data = textbook_data(pictures(case.shape), transforms.Compose([transforms.ToTensor(), normal]))
    workers = {"num_workers": 4, "pin_memory": True, "persistent_workers": True, "multiprocessing_context": "fork"}
    fast: dict[str, Any] = workers if gpu else {}
    loader = torch.utils.data.DataLoader(data, batch_size=case.batch, shuffle=True, drop_last=True, **fast)
    while True:
        for image, _ in loader:
            step(image.to(device, non_blocking=True, memory_format=memory_format))
            yield case.batch


def mixed(forward: Callable[..., Any], device: Any, precision: str) -> Callable[..., Any]:
    """A network's forward in automatic mixed precision; what it returns is float32, for losses that want that."""
    import torch

    def call(*inputs: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return forward(*inputs).float()

    return call


def textbook_data(images: np.ndarray, transform: Any) -> Any:
    """A map-style data set of uint8 (N, H, W, C). For grey 28x28 it is torchvision's own MNIST, fetching and all, with these images."""
    import torch
    from PIL import Image
    from torchvision import datasets

    if images.shape[1:] == (28, 28, 1):

        class InMemory(datasets.MNIST):
            def __init__(self) -> None:
                self.data, self.targets = torch.from_numpy(images.squeeze(-1)), torch.zeros(len(images), dtype=torch.int64)
                self.transform, self.target_transform = transform, None

        return InMemory()
    drawn = [Image.fromarray(image) for image in images]

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(drawn)

        def __getitem__(self, n: int) -> Any:
            return transform(drawn[n]), n

    return Pictures()


def textbook_alone(model: Any) -> Callable[[Any], None]:
    """The step of an auto-encoder or a VAE."""
    import torch

    objective = textbook_vae if hasattr(model, "log_variance") else textbook_autoencoder
    players = [model.players()[name] for name in model.stages()[0].players]
    optimizer = torch.optim.Adam([p for player in players for p in player.parameters()], lr=players[0].lr)

    def step(image: Any) -> None:
        optimizer.zero_grad()
        loss = objective(model, image)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def textbook_gan(model: Any) -> Callable[[Any], None]:
    """The step of a DCGAN as in collections of GANs: new fakes for each player, sigmoid and cross-entropy, `.item()` for each loss."""
    import torch
    import torch.nn.functional as F

    players = model.players()
    optimizers = {name: torch.optim.Adam(p.parameters(), lr=p.lr, betas=p.betas) for name, p in players.items()}

    def loss_of(image: Any, answer: float) -> Any:
        judged = torch.sigmoid(model.discriminator(image))
        return F.binary_cross_entropy(judged, torch.full_like(judged, answer))

    def step(image: Any) -> None:
        optimizers["generator"].zero_grad()
        generator_loss = loss_of(torch.tanh(model.generator(torch.randn(len(image), *model.noise_shape, device=image.device))), 1.0)
        generator_loss.backward()
        optimizers["generator"].step()
        optimizers["discriminator"].zero_grad()
        fake = torch.tanh(model.generator(torch.randn(len(image), *model.noise_shape, device=image.device))).detach()
        discriminator_loss = (loss_of(image, 1.0) + loss_of(fake, 0.0)) / 2
        discriminator_loss.backward()
        optimizers["discriminator"].step()
        generator_loss.item(), discriminator_loss.item()

    return step


def textbook_vae(model: Any, image: Any) -> Any:
    """The loss as pytorch/examples writes it, with the model's own networks and likelihood."""
    import torch
    import torch.nn.functional as F

    features = model.encoder.trunk(image)
    mean, log_variance = model.encoder.head(features), model.log_variance(features)
    deviation = torch.exp(0.5 * log_variance)
    again = torch.sigmoid(model.decoder(mean + torch.randn_like(deviation) * deviation))
    target = (image + 1) / 2
    bernoulli = model.config.likelihood == "bernoulli"
    reconstruction = (F.binary_cross_entropy if bernoulli else F.mse_loss)(again, target, reduction="sum")
    return reconstruction - 0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())


def textbook_autoencoder(model: Any, image: Any) -> Any:
    import torch
    import torch.nn.functional as F

    return F.mse_loss(torch.tanh(model.decoder(model.encoder(image))), image)


def plain_layers(module: Any) -> None:
    """Put torch's own flattening, made for contiguous tensors, in the place of lgm's, which is made for channels_last."""
    from torch import nn

    from models.nets.conv import ToMaps, ToVector

    for name, child in module.named_children():
        if isinstance(child, ToVector):
            setattr(module, name, nn.Flatten())
        elif isinstance(child, ToMaps):
            height, width, channels = child.shape
            setattr(module, name, nn.Unflatten(1, (channels, height, width)))
        else:
            plain_layers(child)


def lgm(case: Case, contender: Contender, device: Any) -> Iterator[int]:
    """lgm's own training loop; yields the images of every few steps."""
    import torch

    from models.config import RunConfig, check
    from models.data.batches import Batches
    from models.data.dataset import ImageData
    from models.device import settle
    from models.training import events, loop, speed

    settle(device)
    never = {"sample_every": ENDLESS, "save_every": ENDLESS, "log_every": 50 * case.batch, "average_images": 0}
    translates = contender.who == "translator"
    values = {"data": "benchmark", "batch": case.batch, "images": ENDLESS, "precision": contender.precision, **never}
    config = check(RunConfig, {"model": "cross-domain" if translates else case.model, **values}, "benchmark")
    data = ImageData("benchmark", pictures(case.shape), labels=np.arange(IMAGES) % len(CLASSES), classes=CLASSES)
    speed.TICK = 0.02  # often enough to end a slice in time
    with tempfile.TemporaryDirectory(prefix="lgm-benchmark-") as folder:
        model = build_translator(case) if translates else build(case, torch.channels_last, contender.stage)
        batches = Batches(data, device, {"to": data} if translates else {})
        job = loop.Job(config, model.to(device), batches, "", Path(folder), device)
        seen = 0
        for event in loop.train(job):
            if isinstance(event, events.Progressed):
                yield event.images - seen
                seen = event.images


def steps_of(case: Case, contender: Contender, device: Any) -> Iterator[int]:
    """One step, or a few, after another; yields their images."""
    return textbook(case, contender.precision, device) if contender.who == "textbook" else lgm(case, contender, device)


def work(case: Case, contender: Contender, threads: int, device: str, pipe: Connection) -> None:
    """A process: for every number of seconds received, train that long and send back the images a second."""
    import torch

    torch.set_num_threads(threads)
    place = torch.device(device)
    finish = torch.cuda.synchronize if place.type == "cuda" else lambda: None
    steps = steps_of(case, contender, place)
    for _ in range(5):
        next(steps)
    pipe.send(0.0)
    while True:
        seconds, began, done = pipe.recv(), time.perf_counter(), 0
        while time.perf_counter() - began < seconds or not done:
            done += next(steps)
        finish()
        pipe.send(done / (time.perf_counter() - began))


def measure(case: Case, contenders: list[Contender], seconds: float, threads: int, device: str) -> dict[Contender, float]:
    """Median images a second of each contender; they take turns, so that all see the same machine."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    speeds: dict[Contender, list[float]] = {contender: [] for contender in contenders}
    try:
        for contender in contenders:
            pipes[contender], far = context.Pipe()
            process = context.Process(target=work, args=(case, contender, threads, device, far))  # no daemon: it may have loaders
            process.start()
            far.close()  # or a process that fails would be waited for
            processes.append(process)
            pipes[contender].recv()
        for _ in range(SLICES):
            for contender, pipe in pipes.items():
                pipe.send(seconds / SLICES / len(contenders))
                speeds[contender].append(pipe.recv())
    finally:
        for process in processes:
            process.kill()
    return {contender: statistics.median(values) for contender, values in speeds.items()}


def matrix_rate(precision: str, threads: int, device: str) -> float:
    """Floating-point operations a second of a matrix product: 2048 cubed, on a GPU 8192 cubed."""
    import torch

    torch.set_num_threads(threads)
    gpu = device.startswith("cuda")
    side = 8192 if gpu else 2048
    a, b = (torch.randn(side, side, dtype=torch.bfloat16 if precision == "bf16" else torch.float32, device=device) for _ in range(2))
    times = []
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def operations(steps: Iterator[int]) -> float:
    """Floating-point operations of one image's training step, as torch counts them: matrix products and convolutions, both ways."""
    from torch.utils.flop_counter import FlopCounterMode

    next(steps)  # what comes before the first step
    with FlopCounterMode(display=False) as counter:
        images = next(steps)
    return counter.get_total_flops() / images


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of measuring, for each case")
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: there the ratios are shown, and nothing is promised")
    arguments = parser.parse_args()
    gpu = arguments.device != "cpu"
    rates = {precision: matrix_rate(precision, arguments.threads, arguments.device) for precision in ("fp32", "bf16")}
    for precision, rate in rates.items():
        print(f"matrix product, {precision}, {arguments.threads} threads: {rate / 1e9:,.0f} GFLOP/s", flush=True)
    for case in CASES:
        if arguments.only not in (None, case.name):
            continue
        contenders = list(dict.fromkeys(c for better, rival, _ in case.promises for c in (rival, better)))
        if gpu and TEXTBOOK in contenders:
            contenders.insert(1, TEXTBOOK_BF16)
        speeds = measure(case, contenders, arguments.seconds, arguments.threads, arguments.device)
        plain = {contender: dataclasses.replace(contender, precision="fp32") for contender in speeds}  # as many operations in either
        counted = {one: operations(steps_of(case, one, torch.device("cpu"))) for one in dict.fromkeys(plain.values())}
        for contender, speed in speeds.items():
            each = counted[plain[contender]]
            share = f"{each / 1e6:,.4g} MFLOP an image, {speed * each / rates[contender.precision]:.0%} of the matrix rate"
            print(f"{case.name}, batch {case.batch}, {contender}: {speed:,.0f} images/s, {share}", flush=True)
        for better, rival, least in case.promises:
            if gpu and better == BF16 and rival == TEXTBOOK:
                rival = TEXTBOOK_BF16
            ratio = speeds[better] / speeds[rival]
            verdict = "" if gpu else f" (at least {least}x promised)" + ("" if ratio >= least else ": MISSED")
            print(f"{case.name}: {better} is {ratio:.2f}x {rival}{verdict}", flush=True)


if __name__ == "__main__":
    main()
