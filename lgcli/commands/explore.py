"""lgm explore"""

from __future__ import annotations

from typing import Annotated

import typer

from lgcli import options as o

PANEL = "Use a trained model"


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise typer.BadParameter(f"{text[:40]!r} is no port: a number from 1 to 65535")
    return int(text)


def explore(
    run: o.Run,
    port: Annotated[int | None, typer.Option(parser=_port, metavar="N", help="Of the page.", show_default="a free one")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
) -> None:
    """Open a page to play with a run: sliders, samples, two images, holes to paint. It is served on this machine alone, until Ctrl-C."""
    import signal
    import sys
    import threading

    from models import api
    from models.runs import explore as pages

    pages.load_gradio()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was uploaded is deleted on the way out
    asked = pages.Asked(api.load(run, device=device, raw=raw), run, o.root(data_root))
    with pages.serving(asked, port, browser) as address:
        print(address, flush=True)
        print("Ctrl-C ends it", file=sys.stderr, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return
