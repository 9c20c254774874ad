"""The page's function for programs gives what the command line gives."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ui_kit import FOX, PROMPT

import freectl
from freectl.files.record import read_record

OPTIONS = {"method": "sdedit", "steps": 3, "seed": 5, "settings": {"strength": 0.5}}


def clients(address: str, count: int) -> list[Any]:
    from gradio_client import Client

    return [Client(address, verbose=False) for _ in range(count)]


def test_the_record_and_the_picture_are_those_of_freectl_edit(address: str) -> None:
    from gradio_client import handle_file

    (client,) = clients(address, 1)
    record, path = client.predict(handle_file(str(FOX)), PROMPT, OPTIONS, None, None, api_name="/edit")
    wanted = freectl.edit(FOX, PROMPT, method="sdedit", steps=3, seed=5, strength=0.5)
    assert Image.open(path).tobytes() == wanted.image.tobytes()
    plain = {"output": Path(path).name, **wanted.record}
    plain["settings"] = plain["settings"] | {"image": "fox.png"}
    for one in (record, plain):
        one["cost"] = one["cost"] | {"seconds": None, "peak_memory_mb": None}
    assert record == {
        **plain,
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in plain["settings"].items()},
    }
    stored = read_record(path)
    assert stored["settings"] == record["settings"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "sdedit", "steps": 0}, "--steps: found 0"),
        ({"method": "nothing"}, "--method: found unknown name 'nothing'"),
        ({"mask": "/etc/passwd"}, "mask: found a path among the options"),
        ({"keep": "/etc/passwd"}, "keep: found a path among the options"),
    ],
)
def test_errors_are_the_command_lines_and_no_path_of_the_server_is_read(
    address: str, options: dict[str, Any], words: str
) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (client,) = clients(address, 1)
    with pytest.raises(AppError) as refused:
        client.predict(handle_file(str(FOX)), PROMPT, options, None, None, api_name="/edit")
    assert words in str(refused.value)


def test_a_file_that_was_not_uploaded_is_not_read(address: str) -> None:
    """Asked for without gradio's client, which uploads what it finds here."""
    outside = {"path": str(FOX), "meta": {"_type": "gradio.FileData"}, "orig_name": "fox.png"}
    body = json.dumps({"data": [outside, PROMPT, OPTIONS, None, None]}).encode()
    asked = urllib.request.Request(f"{address}gradio_api/call/edit", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        number = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}gradio_api/call/edit/{number}", timeout=60) as answer:
        told = answer.read().decode()
    assert "event: error" in told
    assert "event: complete" not in told


def test_nothing_else_of_the_page_is_offered(address: str) -> None:
    (client,) = clients(address, 1)
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert list(named) == ["/edit"]
