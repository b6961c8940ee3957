"""Two ranks on one machine, as torchrun would start them, for tests."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import support

Result = tuple[int, str]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def as_rank(rank: int, world: int, port: int, temporary: str, watch: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """In a child: what torchrun does, then `function(*args)`. Ranks but the first fail where they change files under `watch`."""
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    os.environ.update({name: str(value) for name, value in names.items()})
    tempfile.tempdir = temporary  # where the command line leaves tracebacks

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if arguments and os.path.basename(str(arguments[0])).startswith(".lock-"):
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            assert not str(arguments[0]).startswith(watch), f"rank {rank} writes {arguments[0]}"
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            assert not str(arguments[0]).startswith(watch), f"rank {rank}: {event} {arguments[0]}"

    if rank and watch:
        sys.addaudithook(hook)
    function(*args)


def together(
    tmp_path: Path, watch: Path | None, function: Callable[..., Any], *each: tuple[Any, ...], timeout: float = 60, world: int = 2
) -> list[Result]:
    """Exit code and output of the ranks; `each` are their arguments, the last ones those of all that follow."""
    port = free_port()
    outputs = [tmp_path / f"output-{rank}" for rank in range(world)]
    children = [
        support.start(
            as_rank, rank, world, port, str(tmp_path), str(watch or ""), function, each[min(rank, len(each) - 1)], output=outputs[rank]
        )
        for rank in range(world)
    ]
    try:
        codes = [support.exit_code(child, timeout) for child in children]
    finally:
        for child in children:
            child.kill()
    return [(code, output.read_text()) for code, output in zip(codes, outputs, strict=True)]


def finished(results: list[Result]) -> None:
    for code, text in results:
        assert code == 0, text
