"""Cursive Japanese characters: 60,000 + 10,000 grey images of 28x28, 10 classes.

Source: Clanuwat et al., "Deep Learning for Classical Japanese Literature" (2018), CODH. Licence: CC BY-SA 4.0.
Layout: torchvision's, `KMNIST/raw/*-ubyte` (or `.gz`) under the data root; fetched where absent.
"""

from __future__ import annotations

from models.data.dataset import DataRequest, ImageData
from models.data.idx import load_mnist_like

CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def load(request: DataRequest) -> ImageData:
    """uint8 (N, 28, 28, 1) with the character's reading as label. Raises UserError where files are absent or damaged."""
    return load_mnist_like(request, "KMNIST", "KMNIST", CLASSES)
