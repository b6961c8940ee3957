"""Packed sets against memory, against webdataset and against a DataLoader over files; start-up and memory of large sets.

    python tests/benchmarks/packed.py make runs/million --count 1000000     # 64x64 colour images, made on the spot, packed raw
    python tests/benchmarks/packed.py rates runs/million                    # ratios, side by side in one process
    python tests/benchmarks/packed.py whole runs/million                    # lgm train, killed and resumed: seconds to start, memory
    python tests/benchmarks/packed.py starts                                # folders as large as LFW and EMNIST, first and second time

`webdataset` is compared with where it is installed. Memory is the largest resident set of any process of a command.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from models.data.batches import Batches
from models.data.dataset import ImageData
from models.data.items import Field, Items
from models.data.load import load, parse
from models.data.packed import write
from models.registry import model_class

BATCH = 64
CPU = torch.device("cpu")


class Made(Items):
    """As many different images as are asked for: portraits, shifted sideways, darker and lighter; with whose portrait it is as label."""

    def __init__(self, count: int) -> None:
        faces = load(parse("faces"))
        self.name, self._count = "made", count
        self._images, self._labels = faces.all("image"), faces.all("identity")
        people = tuple(str(n) for n in range(100))
        self.fields = {"image": faces.fields["image"], "label": Field("number", names=people, count=100)}

    def __len__(self) -> int:
        return self._count

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        base, turn = index % len(self._images), index // len(self._images)
        if key == "label":
            return np.asarray(self._labels[base])
        found = np.stack([np.roll(self._images[b], t % 13 - 6, 1) for b, t in zip(base, turn)])
        return found - (found * ((turn % 11) / 40)[:, None, None, None]).astype(np.uint8)


def make(out: Path, count: int) -> None:
    started = time.monotonic()
    found = write.pack(write.of_items(Made(count), raw=True), out)
    took, size = time.monotonic() - started, sum(shard.bytes for shard in found.shards)
    print(f"{count:,} images, {len(found.shards)} shards, {size / 1e9:.2f} GB, {took:.0f} s: {count / took:,.0f} images/s")


# --- rates ------------------------------------------------------------------------------------------------------------------------------


def side_by_side(ways: dict[str, Callable[[], Iterator[Any]]], use: Callable[[Any], object], steps: int, rounds: int) -> dict[str, float]:
    """Images a second of each way of getting batches, in turns: the median over the rounds."""
    streams = {name: begin() for name, begin in ways.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, stream in streams.items():
            started = time.monotonic()
            for _ in range(steps):
                use(next(stream))
            if turn:  # the first warms up
                rates[name].append(steps * BATCH / (time.monotonic() - started))
    return {name: statistics.median(found) for name, found in rates.items()}


def rates(place: Path, files: int) -> None:
    torch.set_num_threads(1)
    packed = load(parse(str(place)))
    some = np.arange(min(len(packed), 100_000))
    memory = ImageData("memory", packed.rows("image", some), packed.rows("label", some), packed.fields["label"].names)

    def ours(data: Items) -> Callable[[], Iterator[Any]]:
        return lambda: (batch.get("image") for batch in Batches(data, CPU).stream(0, BATCH, 0, ("image",)))

    with tempfile.TemporaryDirectory() as folder:
        for n in range(files):
            Image.fromarray(memory.images[n]).save(Path(folder) / f"{n:06d}.png")
        ways = {"lgm, in memory": ours(memory), "lgm, packed": ours(packed), "DataLoader over files": lambda: _files(Path(folder))}
        if (other := _webdataset(place)) is not None:
            ways["webdataset"] = other
        table("batches alone", side_by_side(ways, lambda batch: batch, 50, 5))
        table("a small auto-encoder", side_by_side(ways, _small_network(packed), 20, 7))


def table(title: str, found: dict[str, float]) -> None:
    base = found["lgm, in memory"]
    print(f"\n{title}")
    for name, rate in found.items():
        print(f"  {name:<24} {rate:>10,.0f} images/s  {rate / base:.2f}")


def _small_network(data: Items) -> Callable[[torch.Tensor], object]:
    """A training step of lgm's VAE with few channels."""
    cls = model_class("vae")
    model = cls(cls.Config(widths=(8, 16, 16, 32)), Batches(data, CPU).spec)
    optimizer = torch.optim.Adam(model.parameters())

    def step(images: torch.Tensor) -> None:
        mean, _ = model.posterior(images)
        loss = (model.decode(mean) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


class _Folder(torch.utils.data.Dataset[torch.Tensor]):
    """The textbook's data set: a file is opened and decoded when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        array = np.array(Image.open(self.paths[index]).convert("RGB"))
        return torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1


def _files(folder: Path) -> Iterator[torch.Tensor]:
    while True:
        yield from torch.utils.data.DataLoader(_Folder(folder), BATCH, shuffle=True, drop_last=True)


def _webdataset(place: Path) -> Callable[[], Iterator[Any]] | None:
    try:
        import webdataset as wds
    except ImportError:
        print("webdataset is not installed: not compared with")
        return None
    shards = [str(path) for path in sorted(place.glob("*.tar"))]

    def begin() -> Iterator[torch.Tensor]:
        data = wds.WebDataset(shards, shardshuffle=len(shards), seed=0).shuffle(5000).decode().to_tuple("npy").batched(BATCH).repeat()
        for (images,) in data:
            yield torch.from_numpy(np.stack(images) if isinstance(images, list) else images).permute(0, 3, 1, 2).float() / 127.5 - 1

    return begin


# --- whole commands ---------------------------------------------------------------------------------------------------------------------


class Watched:
    """A command, and what it took: seconds until it said something, seconds in all, largest resident set in MB."""

    def __init__(self, words: list[str], until: str = "", kill: bool = False, ranks: int = 1, **environment: str) -> None:
        launch = [sys.executable, "-m", "lgcli"]
        if ranks > 1:
            launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone", "-m", "lgcli"]
        started = time.monotonic()
        self.first = 0.0
        self.memory: dict[str, tuple[float, float]] = {}  # of each process, its own and all that is resident, in MB
        here = Path(__file__).parents[2]
        with subprocess.Popen(
            [*launch, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=here, env={**os.environ, **environment}
        ) as child:
            assert child.stdout is not None
            lines = []
            for line in child.stdout:
                lines.append(line)
                self._look(child.pid)
                if until and until in line and not self.first:
                    self.first = time.monotonic() - started
                    if kill:
                        os.kill(child.pid, signal.SIGKILL)
            child.wait()
        self.text, self.seconds = "".join(lines), time.monotonic() - started
        self.first = self.first or self.seconds

    @property
    def most(self) -> float:
        """The largest resident set of all processes."""
        return max((resident for _, resident in self.memory.values()), default=0.0)

    def _look(self, parent: int) -> None:
        """Note the largest resident set so far of a process and its children."""
        children = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True).stdout.split()
        for pid in (str(parent), *children):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in status.splitlines() if line.endswith(" kB")}
            before = self.memory.get(pid, (0.0, 0.0))
            self.memory[pid] = max(before[0], sizes.get("RssAnon", 0.0)), max(before[1], sizes.get("VmHWM", 0.0))


SMALL = ["--set", "widths=8,16,16,32", "--log-every", "640", "--sample-every", "1000000000", "--json"]


def whole(place: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        info = Watched(["data", "info", str(place)])
        print(f"lgm data info: {info.seconds:.1f} s, {info.most:,.0f} MB")
        run = str(Path(folder) / "run")
        words = ["train", "vae", "--data", str(place), "--out", run, "--images", "50000", "--save-every", "10000", *SMALL]
        for name, found in (
            ("lgm train, killed at 20,000", Watched(words, until='"saved", "images": 2', kill=True)),
            ("lgm train, begun again", Watched(["train", "--resume", run, "--json"], until='"logged"')),
        ):
            print(f"{name}: {found.seconds:.1f} s, {found.most:,.0f} MB")
        begun = Watched(["train", "vae", "--data", str(place), "--out", f"{run}2", "--images", "1280", *SMALL], until='"started"')
        print(f"lgm train, until it starts: {begun.first:.1f} s")


LOAD = """
import sys, time
started = time.monotonic()
from models.data.load import load, parse
found = load(parse(sys.argv[1]))
found.fingerprint()
print(f"took {time.monotonic() - started:.2f}", flush=True)
"""


def starts() -> None:
    """Seconds until a folder is loaded and its fingerprint known, in a new process; and the memory of the ranks of `lgm train`."""
    sizes = {
        "as LFW: 13,233 JPEGs of 250x250": (13_233, 250, 3, "jpg"),
        "as EMNIST letters: 124,800 PNGs of 28x28": (124_800, 28, 1, "png"),
    }
    for title, (count, side, channels, suffix) in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            place, store = Path(folder) / "images", str(Path(folder) / "cache")
            _write_folder(place, count, side, channels, suffix)
            print(f"\n{title}", flush=True)
            for name, limit in (("without a cache", "0"), ("first time", "20G"), ("second time", "20G")):
                there = {**os.environ, "LGM_CACHE": store, "LGM_CACHE_LIMIT": limit}
                words = [sys.executable, "-c", LOAD, str(place)]
                made = subprocess.run(words, capture_output=True, text=True, env=there, cwd=Path(__file__).parents[2], check=True)
                print(f"  {name:<16} {made.stdout.strip()} s", flush=True)
            for ranks in (1, 4):
                for name, limit in (("without", "0"), ("with", "20G")):
                    words = _start(place, folder, f"{ranks}{name}")
                    found = Watched(words, until='"started"', kill=True, ranks=ranks, LGM_CACHE=store, LGM_CACHE_LIMIT=limit)
                    each = sorted(found.memory.values())[-ranks:]
                    told = ", ".join(f"{own:,.0f} ({resident:,.0f})" for own, resident in each)
                    print(f"  {ranks} rank{'s' if ranks > 1 else ''} {name} a cache, its own memory (and resident): {told} MB", flush=True)


def _start(place: Path, folder: str, name: str) -> list[str]:
    run = str(Path(folder) / f"run-{name}")
    return ["train", "vae", "--data", str(place), "--out", run, "--images", "1280", "--batch", "64", *SMALL]


def _write_folder(place: Path, count: int, side: int, channels: int, suffix: str) -> None:
    place.mkdir()
    dice = np.random.default_rng(0)
    few = [dice.integers(0, 256, (max(side // 8, 4), max(side // 8, 4), 3), np.uint8) for _ in range(50)]
    for n in range(count):
        image = Image.fromarray(few[n % 50]).resize((side, side), Image.Resampling.BICUBIC)
        (image if channels == 3 else image.convert("L")).save(place / f"{n:06d}.{suffix}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "rates", "whole", "starts"))
    parser.add_argument("place", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=5_000, help="of the DataLoader's folder")
    chosen = parser.parse_args()
    if chosen.what == "starts":
        starts()
    elif chosen.place is None:
        parser.error("name the place of the packed set")
    else:
        {
            "make": lambda: make(chosen.place, chosen.count),
            "rates": lambda: rates(chosen.place, chosen.files),
            "whole": lambda: whole(chosen.place),
        }[chosen.what]()


if __name__ == "__main__":
    main()
