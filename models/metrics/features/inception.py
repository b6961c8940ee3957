"""The FID Inception network: torch-fidelity's port of the TensorFlow graph of 2015-12-05, with its batch norm folded in.

The features are the 2048 means of the last layer; the logits are the 1008 without bias that the Inception Score takes. Both equal those of
torch-fidelity on the same weights up to rounding. What a FID depends on besides the weights is the way to 299x299:

* `resize="tensorflow"`: bilinear as TensorFlow 1 does it (no antialiasing, the corner pixel on the corner), which published FIDs mean;
* `resize="clean"`: Pillow's bicubic filter with antialiasing, each channel in float, not rounded to bytes, as in clean-fid (Parmar et al.,
  "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", 2022).

Grey images are repeated to three channels. Images of a batch may have different sizes; nothing is cropped.

Weights are tensors and nothing else: no file is ever unpickled beyond that.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.cache import cache_folder, sha256_of
from models.device import full_precision
from models.errors import UserError, nearest, printable

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299
RESIZES = ("tensorflow", "clean")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
ORIGINAL = f"the original weights are {URL} (96 MB, sha256 {SHA256})"


class InceptionFeatures:
    """The network as `Features`.

    Args:
        weights: a file in the original's format (.pth) or .safetensors with the same names; None: the original weights, from the cache
            folder, downloaded into it where they are missing there.
        resize: `tensorflow` or `clean`.
        precision: `bf16` is faster, moves the features by about half a percent, and is for comparisons whose both sides use it.
        device: where `apply` computes.
        download: whether the weights may be fetched.

    Raises UserError where the weights are missing, damaged or of another network.
    """

    name, dimensions, classes = "inception", 2048, 1008

    def __init__(
        self,
        weights: Path | None = None,
        *,
        resize: str = "tensorflow",
        precision: str = "fp32",
        device: torch.device | str = "cpu",
        download: bool = True,
    ) -> None:
        if resize not in RESIZES:
            raise UserError(f"unknown way to resize {resize!r}", "--resize", nearest(resize, RESIZES))
        if precision not in PRECISIONS:
            raise UserError(f"unknown precision {precision!r}", "--precision", nearest(precision, PRECISIONS))
        self.resize, self.precision, self.device = resize, precision, torch.device(device)
        path = find_weights(weights, download)
        self._layers = _layers()
        shapes = {name: t.shape for name, t in self._layers.state_dict().items() if not name.endswith("num_batches_tracked")}
        tensors = read_weights(path, {**shapes, "fc.weight": torch.Size((self.classes, self.dimensions))})
        self.digest = _digest(tensors)
        _fold(self._layers, tensors)
        self._layers.to(memory_format=torch.channels_last).to(self.device, PRECISIONS[precision])
        self._classifier = tensors["fc.weight"].to(self.device)

    def recipe(self) -> dict[str, Any]:
        return {"name": self.name, "digest": self.digest, "resize": self.resize, "precision": self.precision}

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 (H, W, 1 or 3) images, of any sizes, as float32 (B, 3, 299, 299) in [-1, 1), channels_last.

        numpy and Pillow keep to the thread that calls them; torch would start threads of its own from each.
        """
        resized = resize_clean if self.resize == "clean" else resize_tensorflow
        batch = np.empty((len(images), SIDE, SIDE, 3), np.float32)
        for out, image in zip(batch, images):
            values = resized(image)
            values -= np.float32(128)
            np.multiply(values, np.float32(1 / 128), out=out)  # repeats a grey image's one channel
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    @torch.no_grad()
    def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2048) and logits (B, 1008), float32, on the CPU."""
        batch = batch.to(self.device, PRECISIONS[self.precision], memory_format=torch.channels_last)
        with full_precision():
            features = self._layers(batch).mean((2, 3), dtype=torch.float32)
            logits = features @ self._classifier.T
        return features.cpu(), logits.cpu()

    def look(self, images: Tensor) -> Tensor:
        """Features (B, 2048) of float images (B, C, H, W) in [-1, 1], which are not rounded to bytes."""
        return self.apply(self.prepare(list(((images.float() + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy())))[0]


# ---- the way to 299x299 --------------------------------------------------------------------------------------------------------------


def resize_tensorflow(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) to float32 (299, 299, C) in [0, 255], to the bit as TensorFlow 1's `resize_bilinear` on a CPU.

    torch-fidelity (`interpolate_bilinear_2d_like_tensorflow1x`) interpolates along a row at both rows that an output pixel lies between.
    Doing it once for every row of the image gives the same numbers with less work.
    """
    rows, above, below, down = _taps(image.shape[0])
    columns, left, right, across = _taps(image.shape[1])
    image = image[rows][:, columns].astype(np.float32)
    lines = image.take(left, axis=1)
    step = image.take(right, axis=1)
    step -= lines
    step *= across[:, None]
    lines += step
    values = lines.take(above, axis=0)
    step = lines.take(below, axis=0)
    step -= values
    step *= down[:, None, None]
    values += step
    return values


@lru_cache(maxsize=64)
def _taps(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Along a side of `length` pixels: those that count, the two (indices into those) that each output pixel lies between, and where."""
    position = np.arange(SIDE, dtype=np.float32) * np.float32(length / SIDE)
    low = position.astype(np.int64)
    high = np.minimum(low + 1, length - 1)
    used = np.unique(np.concatenate([low, high]))
    return used, np.searchsorted(used, low), np.searchsorted(used, high), position - low.astype(np.float32)


def resize_clean(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) to float32 (299, 299, C) in [0, 255] as clean-fid's `build_resizer("clean")`."""
    channels = [Image.fromarray(image[:, :, c].astype(np.float32)) for c in range(image.shape[2])]
    resized = [np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for channel in channels]
    return np.stack(resized, axis=2).clip(0, 255)


# ---- the network ---------------------------------------------------------------------------------------------------------------------


def _layers() -> nn.Sequential:
    """torch-fidelity's layers under its names, without memory for weights. (Its own constructor would unpickle a file.)"""
    from torch_fidelity import feature_extractor_inceptionv3 as port  # imports torchvision

    with torch.device("meta"):
        layers: dict[str, nn.Module] = {
            "Conv2d_1a_3x3": port.BasicConv2d(3, 32, kernel_size=3, stride=2),
            "Conv2d_2a_3x3": port.BasicConv2d(32, 32, kernel_size=3),
            "Conv2d_2b_3x3": port.BasicConv2d(32, 64, kernel_size=3, padding=1),
            "MaxPool_1": nn.MaxPool2d(kernel_size=3, stride=2),
            "Conv2d_3b_1x1": port.BasicConv2d(64, 80, kernel_size=1),
            "Conv2d_4a_3x3": port.BasicConv2d(80, 192, kernel_size=3),
            "MaxPool_2": nn.MaxPool2d(kernel_size=3, stride=2),
            "Mixed_5b": port.InceptionA(192, pool_features=32),
            "Mixed_5c": port.InceptionA(256, pool_features=64),
            "Mixed_5d": port.InceptionA(288, pool_features=64),
            "Mixed_6a": port.InceptionB(288),
            "Mixed_6b": port.InceptionC(768, channels_7x7=128),
            "Mixed_6c": port.InceptionC(768, channels_7x7=160),
            "Mixed_6d": port.InceptionC(768, channels_7x7=160),
            "Mixed_6e": port.InceptionC(768, channels_7x7=192),
            "Mixed_7a": port.InceptionD(768),
            "Mixed_7b": port.InceptionE_1(1280),
            "Mixed_7c": port.InceptionE_2(2048),
        }
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network.eval().requires_grad_(False)


class _Convolution(nn.Module):
    """A convolution with bias, and ReLU."""

    def __init__(self, layout: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.stride, self.padding = layout.stride, layout.padding
        self.weight, self.bias = (nn.Parameter(t, requires_grad=False) for t in (weight, bias))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":
            # A negative bf16 number is a negative int16 one. torch clamps integers 14 times faster, which saved a quarter of the network.
            x.view(torch.int16).clamp_(min=0)
            return x
        return F.relu_(x)


def _fold(network: nn.Sequential, tensors: Mapping[str, Tensor]) -> None:
    """Replace every convolution with batch norm by one convolution whose weights and bias include it; scales are taken in float64."""
    for name, block in list(network.named_modules()):
        if not isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
            continue
        scale, shift, mean, variance = (tensors[f"{name}.bn.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var"))
        scale = scale / (variance + block.bn.eps).sqrt()
        weight = tensors[f"{name}.conv.weight"].double() * scale[:, None, None, None]
        network.set_submodule(name, _Convolution(block.conv, weight.float(), (shift - mean * scale).float()))


# ---- weights -------------------------------------------------------------------------------------------------------------------------


def find_weights(weights: Path | None = None, download: bool = True) -> Path:
    """The file of weights: `weights` itself, or the original in the cache folder, which is fetched where it is missing or damaged.

    The original's sha256 is checked whenever it is used. A file that `weights` names is checked against its name where that ends in a
    hash, as in `weights-inception-2015-12-05-6726825d.pth`. Raises UserError.
    """
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError("there is no such file of Inception weights", path, f"--weights names a file; {ORIGINAL}")
        named = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
        if named and not (found := _sha256(path)).startswith(named[1]):
            what = f"the Inception weights are damaged: sha256 {found}, expected {named[1]}..."
            raise UserError(what, path, f"get the file again; {ORIGINAL}")
        return path
    path = cache_folder() / URL.rpartition("/")[2]
    reason = "they are not there"
    if path.is_file():
        found = _sha256(path)
        if found == SHA256:
            return path
        reason = f"the file is damaged (sha256 {found[:8]}..., expected {SHA256[:8]}...)"
    if not download:
        _not_to_be_had(f"{reason} and downloads are off", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Into a temporary file next to it, which is renamed once the hash is right.
        torch.hub.download_url_to_file(URL, str(path), SHA256, progress=False)
    except Exception as error:  # URLError, timeouts, a wrong hash (RuntimeError), no permission, disk full
        _not_to_be_had(f"{reason} and the download failed ({printable(error) or type(error).__name__})", path, error)
    return path


def _not_to_be_had(reason: str, path: Path, cause: Exception | None = None) -> NoReturn:
    ways_out = f"name a copy with --weights FILE, or put one there, or take other features: --features classifier:RUN; {ORIGINAL}"
    raise UserError(f"the Inception weights cannot be had: {reason}", path, ways_out) from cause


def read_weights(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The file's tensors that `shapes` names, float32, on the CPU. Raises UserError where one is missing or not as it should be."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            with warnings.catch_warnings():  # about unusual but harmless versions of the format
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes of the readers; their texts advise to trust it
        what = f"the file cannot be read as weights ({type(error).__name__}): it is damaged, or holds more than tensors"
        raise UserError(what, path, f"get the file again; {ORIGINAL}") from error
    if not isinstance(found, Mapping):
        found = {}
    tensors = {}
    for name, shape in shapes.items():
        tensor = found.get(name)
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.shape != shape:
            has = f"has {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else "is not there"
            raise UserError(f"not the weights of the FID Inception network: {name} {tuple(shape)} {has}", path, ORIGINAL)
        if not torch.isfinite(tensor).all():
            raise UserError(f"the Inception weights are damaged: {name} has values that are not finite", path, ORIGINAL)
        tensors[name] = tensor.float()
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    """Of a file's content. Raises UserError where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"the Inception weights cannot be read ({error.strerror or error})", path, "check its permissions") from error
