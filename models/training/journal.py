"""The run's record: losses averaged over a window of steps, one JSON line a window in log.jsonl."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Window:
    """Running means of the losses since the last line of the log.

    The sums stay on the device, so that a step never waits for them; their state goes into the checkpoint, so that a resumed run logs the
    same numbers as the straight one.
    """

    def __init__(self, state: Mapping[str, Any] | None = None, device: torch.device | None = None) -> None:
        self.since: int | None = None if not state else state["since"]  # images seen when the window began
        self._device = device
        self._counts: dict[str, int] = dict(state["counts"]) if state else {}
        self._sums: dict[str, Tensor] = {k: torch.tensor(v, device=device) for k, v in (state["sums"] if state else {}).items()}

    @torch.no_grad()
    def add(self, images: int, scalars: Mapping[str, Tensor]) -> None:
        self.since = images if self.since is None else self.since
        known = [name for name in scalars if name in self._sums]
        if known:
            torch._foreach_add_([self._sums[name] for name in known], [scalars[name] for name in known])  # one kernel, not one each
        for name, value in scalars.items():
            if name not in self._sums:
                self._sums[name] = value.detach().to(self._device, torch.float32, copy=True)
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: total / self._counts[name] for name, total in sorted(self._totals().items())}

    def not_finite(self) -> list[str]:
        return [name for name, value in self.means().items() if not math.isfinite(value)]

    def clear(self) -> None:
        self.since, self._sums, self._counts = None, {}, {}

    def state(self) -> dict[str, Any]:
        return {"since": self.since, "counts": self._counts, "sums": self._totals()}

    def _totals(self) -> dict[str, float]:
        """All sums, fetched from the device at once."""
        return dict(zip(self._sums, torch.stack(list(self._sums.values())).tolist())) if self._sums else {}


class Journal:
    """log.jsonl: lines beyond `images` (written by a leg of the run that was lost) and torn lines are dropped when it is opened."""

    def __init__(self, path: Path, images: int) -> None:
        self.path = path
        kept = [line for line in _lines(path) if isinstance(line.get("images"), int) and line["images"] <= images]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if path.exists() and path.read_text(errors="replace") != text:
            temporary = path.with_name(".log.jsonl.tmp")
            temporary.write_text(text)
            os.replace(temporary, path)
        self._file = open(path, "a", buffering=1)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line. A full disk must not stop the training: the line is lost, the next one tries again."""
        with contextlib.suppress(OSError):
            self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # torn by a crash
        if isinstance(value, dict):
            found.append(value)
    return found
