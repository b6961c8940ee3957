"""Pictures of clothing: 60,000 + 10,000 grey images of 28x28, 10 classes.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST" (2017), Zalando Research. Licence: MIT.
Layout: torchvision's, `FashionMNIST/raw/*-ubyte` (or `.gz`) under the data root; fetched where absent.
"""

from __future__ import annotations

from models.data.dataset import DataRequest, ImageData
from models.data.idx import load_mnist_like

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def load(request: DataRequest) -> ImageData:
    """uint8 (N, 28, 28, 1) with the kind of clothing as label. Raises UserError where files are absent or damaged."""
    return load_mnist_like(request, "FashionMNIST", "FashionMNIST", CLASSES)
