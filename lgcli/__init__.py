"""lgm: latent generative models of images. The command line, and under a name of its own the Python API.

::

    import lgcli as lgm

    trained = lgm.train("aegan", data="glyphs", preset="quick")
    trained = lgm.load("runs/aegan-glyphs")

The back end is the package `models`, a name that folders of other projects have as well: from such a folder Python would take that one.
What is asked of `lgcli` comes from lgm's own, or an ImportError names the one in its way. Importing it is light.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models import __version__, evaluation
    from models.api import Trained, load, plan, stream, train
    from models.capabilities import masks

__all__ = ["Trained", "__version__", "evaluation", "load", "masks", "plan", "stream", "train"]
_MODULES = {"evaluation": "models.evaluation", "masks": "models.capabilities.masks"}  # the others are names of the package itself


def shadow() -> str | None:
    """Where another package or module named `models` lies that Python takes for lgm's; None where there is none. It is not imported."""
    ours = Path(__file__).resolve().parent.parent / "models"
    found = importlib.util.find_spec("models")
    where = (found and found.origin) or "?"
    return None if Path(where).resolve().parent == ours else where


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if (other := shadow()) is not None:
        raise ImportError(f"another package named models hides lgm's own: {other}; start Python from another folder")
    return importlib.import_module(_MODULES[name]) if name in _MODULES else getattr(importlib.import_module("models"), name)
