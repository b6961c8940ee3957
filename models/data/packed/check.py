"""`lgm data check` for a packed set: every digest, and every image. No torch here."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from models.data.cache import sha256_of
from models.data.folder import Report, cores
from models.data.packed.read import Packed
from models.errors import UserError


def check(data: Packed) -> Report:
    """Read all shards; what is wrong with one, or with the image of an item, is in the report. Raises nothing for it."""
    bad = list(data.bad)
    good = 0
    for number, shard in enumerate(data.manifest.shards):
        where = f"{data.store.name}/{shard.name}"
        try:
            whole = sha256_of(data.store.path(shard.name, shard.bytes, shard.sha256)) == shard.sha256
            names, first = data.names_of(number), data.first_of(number)
        except (OSError, UserError) as error:
            bad.append((where, error.what if isinstance(error, UserError) else f"cannot be read ({error.strerror})"))
            continue
        with ThreadPoolExecutor(cores()) as pool:
            reasons = list(pool.map(partial(data.damaged, number), range(shard.count)))
        found = [(f"{where}: {names[n] or f'{first + n:09d}'}", reason) for n, reason in enumerate(reasons) if reason]
        if not whole:
            rest = "" if found else ", though none of an image's"
            found.append((where, f"its sha256 is not the manifest's: bytes have changed{rest}"))
        bad += found
        good += reasons.count("")
    channels, height, width = data.fields["image"].shape
    label = data.fields.get("label")
    sizes = Counter({f"{w}x{h}": n for h, w, n in data.manifest.pictures["image"].sizes})
    return Report(
        name=data.name,
        count=good,
        shape=(height, width, channels),
        classes=label.names if label else (),
        bad=tuple(bad),
        notes=data.notes,
        modes={"L" if channels == 1 else "RGB": good},
        sizes=dict(sizes.most_common()),
    )
