"""The server of the page: who may reach it, where its files are, and that they go with it."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from freectl.errors import FreectlError, InputError
from freectl.ui.session import Sessions
from freectl.ui.uploads import MAX_BYTES

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check(host: str, share: bool, password: str | None) -> None:
    """Refuse to open the page to others without a password.

    Raises:
        InputError: another host than this machine, or a public link, without one; or an empty one.
    """
    if password is not None and len(password) < 8:
        raise InputError("--password", f"{len(password)} characters", "8 or more")
    if password is None and share:
        raise InputError("--share", "a public link for anyone, without --password", "with --password")
    if password is None and host not in LOOPBACK:
        raise InputError(
            "--host",
            f"'{host}', where others can reach the page and use this machine",
            f"{LOOPBACK[0]}, or with --password",
        )


def serve(
    model: str = "mini",
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
    share: bool = False,
    password: str | None = None,
    ready: Callable[[str], Any] | None = None,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        port: None takes the first free one from 7860 on. ready: called with the address.

    Raises:
        InputError: an option cannot be used. FreectlError: no such port is free.
    """
    from freectl.pipelines.loading import resolve_model

    check(host, share, password)
    resolve_model(model)
    with opened(model, host, port, browser=browser, share=share, password=password) as (page, address):
        if ready is not None:
            ready(address)
        page.block_thread()


@contextmanager
def opened(
    model: str, host: str, port: int | None, *, browser: bool = False, share: bool = False, password: str | None = None
) -> Iterator[tuple[Any, str]]:
    """The running page and its address; its files go with it.

    Raises:
        FreectlError: the port is not free.
    """
    sessions = Sessions()
    # gradio reads these when its parts are made; uploads then lie and go with the sessions
    os.environ |= {"GRADIO_TEMP_DIR": str(sessions.root), "GRADIO_ANALYTICS_ENABLED": "False"}
    from freectl.ui.page import CSS, build

    page = build(sessions, list(dict.fromkeys([model, "mini"])))
    try:
        _, address, _ = page.queue(default_concurrency_limit=8).launch(
            server_name=host, server_port=port, inbrowser=browser, share=share, quiet=True, prevent_thread_lock=True,
            auth=None if password is None else lambda _, given: secrets.compare_digest(given, password),
            auth_message="Any name, and the password.", max_file_size=MAX_BYTES, show_error=True, css=CSS,
            footer_links=["api"], run_history=False, enable_monitoring=False, ssr_mode=False,
        )  # fmt: skip
        yield page, address
    except OSError as error:
        raise FreectlError(f"--port: {error}") from error
    finally:
        page.close()
        shutil.rmtree(sessions.root, ignore_errors=True)
