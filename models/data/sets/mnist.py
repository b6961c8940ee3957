"""Handwritten digits: 60,000 + 10,000 grey images of 28x28, 10 classes.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits" (1998). Licence: CC BY-SA 3.0.
Layout: torchvision's, `MNIST/raw/*-ubyte` (or `.gz`) under the data root; fetched where absent.
"""

from __future__ import annotations

from models.data.dataset import DataRequest, ImageData
from models.data.idx import load_mnist_like

CLASSES = tuple("0123456789")


def load(request: DataRequest) -> ImageData:
    """uint8 (N, 28, 28, 1) with the digits as labels. Raises UserError where files are absent or damaged."""
    return load_mnist_like(request, "MNIST", "MNIST", CLASSES)
