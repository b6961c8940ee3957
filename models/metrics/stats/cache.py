"""Statistics of data sets, kept in the user's cache folder so that they are computed once.

The key is made of the content's fingerprint, the recipe (features' digest, resize, precision) and the version of lgm, which decodes; never
of a name: a folder whose images changed has another key. Entries are ordinary statistics files, written atomically and verified when they
are read; a damaged one is deleted and computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.data.cache import cache_folder
from models.errors import LgmError, UserError
from models.metrics.stats import files
from models.version import __version__


def key(fingerprint: str, recipe: Mapping[str, Any]) -> str:
    """A name for the statistics of images with this fingerprint under this recipe."""
    return hashlib.sha256(json.dumps([fingerprint, dict(recipe), __version__], sort_keys=True).encode()).hexdigest()


def path_of(key: str) -> Path:
    return cache_folder() / "statistics" / f"{key}.safetensors"


def read(key: str, warn: Callable[[str], None]) -> files.Statistics | None:
    """The entry, or None where there is none, or a damaged one, which is deleted with a warning."""
    path = path_of(key)
    if not os.path.lexists(path):
        return None
    try:
        return files.read(path)
    except UserError as error:
        warn(f"a damaged entry of the cache is deleted and computed again: {path} ({error.what})")
        with contextlib.suppress(OSError):  # writing the new one will say what is wrong with the folder
            path.unlink(missing_ok=True)
        return None


def write(key: str, statistics: files.Statistics, warn: Callable[[str], None]) -> None:
    """Keep an entry. Where that fails (a full disk, no permission) it is computed again next time, with a warning."""
    path = path_of(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save(statistics, path)
    except (LgmError, OSError) as error:
        warn(f"the statistics could not be kept in the cache ({error}); they will be computed again next time")
