"""Around every command: errors become one clear message and an exit code, never a traceback."""

from __future__ import annotations

import errno
import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

from models.errors import LgmError, printable

_PACKAGES = {"PIL": "pillow"}  # where the package is not called like the module
_OF_DISKS = {  # what is wrong, what to do, and the exit code
    errno.ENAMETOOLONG: ("the name of a file is too long", "give a shorter name", 2),
    errno.ENOSPC: ("the disk is full", "free some space", 1),
}


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Exit codes: 0 done, 1 the run failed, 2 the user's mistake, 128 + n stopped by signal n."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except LgmError as error:
            _leave(f"error: {error}", error.exit_code)
        except KeyboardInterrupt as stop:
            _leave(f"interrupted: {printable(stop)}" if str(stop) else "interrupted", 130)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # nobody reads any more; do not stumble again while Python shuts down
            raise SystemExit(1) from None
        except (typer.Exit, typer.Abort):  # Typer's own ways to leave
            raise
        except Exception as error:
            missing = (getattr(error, "name", None) or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
            if missing in ("torch", "torchvision", "numpy", "PIL", "safetensors", "scipy"):
                install = f"{sys.executable} -m pip install {_PACKAGES.get(missing, missing)}"
                _leave(f"error: {missing} is not installed: {sys.executable}\n  fix: {install}", 2)
            if isinstance(error, OSError) and error.errno in _OF_DISKS:
                what, fix, code = _OF_DISKS[error.errno]
                _leave(f"error: {what}{f': {printable(error.filename, 80)}' if error.filename else ''}\n  fix: {fix}", code)
            if os.environ.get("LGM_DEBUG"):
                raise
            if any(words in str(error) for words in ("out of memory", "can't allocate memory")) or isinstance(error, MemoryError):
                _leave("error: out of memory\n  fix: use a smaller --batch, smaller networks (--set), or another --device", 1)
            _leave(f"error: unexpected {type(error).__name__}: {printable(error)}\n  fix: this is a bug; report it with {_saved()}", 1)

    return run


def _leave(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(code)


def _saved() -> Path:
    """The traceback of the exception that is being handled, in a file. (LGM_DEBUG=1 shows it at once.)"""
    descriptor, name = tempfile.mkstemp(prefix="lgm-traceback-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(traceback.format_exc())
    return Path(name)
