"""`freectl ui`."""

from typing import Annotated

import typer

from freectl.cli import panels
from freectl.cli.app import examples
from freectl.cli.options import MODEL_NAMES

EXAMPLES = examples("freectl ui --open", "freectl ui --model stable-diffusion-v1-5/stable-diffusion-v1-5 --port 8000")


def ui(
    model: Annotated[
        str,
        panels.model(
            help="As for `freectl edit`; others can be chosen in the page.",
            metavar=MODEL_NAMES,
        ),
    ] = "mini",
    host: Annotated[
        str, panels.machine(help="Address to listen on; another than this machine needs --password.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, panels.machine(help="Port.  [default: the first free one from 7860 on]", min=1, max=65535)
    ] = None,
    open_: Annotated[bool, panels.machine("--open", help="Open the page in the browser.")] = False,
    share: Annotated[
        bool, panels.machine("--share", help="Also make a public link by gradio's service; needs --password.")
    ] = False,
    password: Annotated[
        str | None,
        panels.machine(help="What the page asks for, with any name.", envvar="FREECTL_PASSWORD", show_envvar=True),
    ] = None,
) -> None:
    """A page in the browser: edit, control, compare, with previews and a history."""
    from importlib.util import find_spec

    from freectl.errors import InputError
    from freectl.ui.server import check, serve

    check(host, share, password)
    if find_spec("gradio") is None:
        raise InputError("freectl ui", "no gradio", "an installation with it: pip install 'freectl[ui]'")
    from freectl.cli.output import quiet_libraries

    quiet_libraries()
    serve(model, host=host, port=port, browser=open_, share=share, password=password, ready=announce)


def announce(address: str) -> None:
    """Say where the page is."""
    typer.echo(f"{address}  (Ctrl-C ends it)")
