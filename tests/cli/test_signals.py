"""Ctrl-C and SIGTERM at every stage of an edit: exit 130 and 143, nothing half-written, the network as it was."""

import os
import signal

import pytest
from commands import files

from freectl.files import pictures, record
from freectl.models import engine
from freectl.pipelines import base, call_inputs
from freectl.tasks import edit as editing

POINTS = [
    (pictures, "load_image", "reading the picture"),
    (editing, "load_pipeline", "loading the model"),
    (call_inputs, "fit_images", "before anything runs"),
    (call_inputs, "encode_texts", "encoding the prompt"),
    (engine.Engine, "encode_images", "encoding the picture"),
    (engine.FiniteCall, "__call__", "inside the loop"),
    (engine.Engine, "decode", "decoding"),
    (base, "composite_tensor", "composing what is kept"),
    (record, "save_image", "before the file is begun"),
    (os, "fsync", "while bytes are on their way"),
]


@pytest.fixture
def sdedit(cli, model):
    """An edit of two steps that computes all it needs."""
    usual = (
        "--image",
        "in.png",
        "--prompt",
        "a cat",
        "--model",
        model,
        "--method",
        "sdedit",
        "--steps",
        2,
        "--no-cache",
    )
    return lambda *args: cli("edit", *usual, "--format", "json", *args)


@pytest.fixture(autouse=True)
def heeded():
    """Ctrl-C as a terminal's programs know it: what a script starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def stopped(sdedit, monkeypatch):
    """An edit that is sent a signal at a point."""
    from PIL import Image

    mask = Image.new("L", (40, 32), 0)
    mask.paste(255, (0, 0, 20, 32))
    mask.save("mask.png")

    def run(place, name, number):
        real, sent = getattr(place, name), []

        def send(*args, **kwargs):
            if not sent:
                sent.append(1)
                os.kill(os.getpid(), number)
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(place, name, send)
            ran = sdedit("--keep", "mask.png")
        assert sent, "the point was not reached"
        return ran

    return run


@pytest.mark.parametrize(("place", "name", "what"), POINTS, ids=[what for *_, what in POINTS])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_at_any_point(stopped, place, name, what, number, code):
    if name == "load_pipeline":
        editing._pipeline.cache_clear()
    ran = stopped(place, name, number)
    assert ran.code == code
    assert ran.err.splitlines()[-1].endswith("interrupted; nothing was written")
    assert "Traceback" not in ran.err
    assert files() == {"in.png", "mask.png"}


def test_after_signals_the_network_is_as_it_was(stopped, sdedit):
    assert sdedit("--output", "first.png").code == 0
    for place, name, what in POINTS[3:7]:
        assert stopped(place, name, signal.SIGINT).code == 130, what
    assert sdedit("--output", "again.png").code == 0
    first, again = (pictures.load_image(path).image.tobytes() for path in ("first.png", "again.png"))
    assert first == again
