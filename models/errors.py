"""The exceptions that lgm raises on purpose. No torch here.

Every one of them carries three parts, so that every message answers three questions: what is wrong, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LgmError(Exception):
    """Base of the errors that the command line shows without a traceback.

    Args:
        what: what is wrong, as a short sentence without full stop.
        where: the file, flag or field that it is about.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, where: object = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, printable(where), fix
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.what}: {self.where}" if self.where else self.what
        return f"{line}\n  fix: {self.fix}" if self.fix else line


class UserError(LgmError):
    """The request cannot be carried out as given; nothing was changed. Exit code 2."""

    exit_code = 2


class RunFailed(LgmError):
    """A run that had started cannot go on (non-finite numbers, disk full at the last save). Exit code 1."""


class ContractError(LgmError):
    """A model's code breaks the model contract of `models.base`. A bug in the model, not the user's mistake. Exit code 1."""


class Interrupted(LgmError):
    """A signal stopped the run after the state was saved. Exit code 128 + signal number."""

    def __init__(self, signal_number: int, what: str, where: object = "", fix: str = "") -> None:
        self.exit_code = 128 + signal_number
        super().__init__(what, where, fix)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``did you mean 'aegan'? known: aegan, vae`` for a mistyped name (empty list: ``known: none``)."""
    known = sorted(known)
    close = nearest_of(name, known)
    hint = f"did you mean {close!r}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


def nearest_of(name: str, known: Iterable[str]) -> str:
    """The known name that a mistyped one comes nearest to; empty where none is near."""
    return next(iter(difflib.get_close_matches(name[:100].lower(), list(known), n=1, cutoff=0.5)), "")


def printable(thing: object, limit: int = 300) -> str:
    """`thing` as one printable line: control characters and undecodable bytes escaped, the middle of very long text cut out."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(thing))
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"
