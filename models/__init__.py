"""lgm: latent generative models of images. `train`, `load` and `stream` are the API; importing this is light.

Other projects have a package of this name as well, so `import lgcli as lgm` gives the same under a name that cannot be mistaken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.version import __version__

if TYPE_CHECKING:
    from models.api import Trained, load, plan, stream, train

__all__ = ["Trained", "__version__", "load", "plan", "stream", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from models import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
