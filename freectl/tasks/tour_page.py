"""The tour's page: one HTML file with everything in it."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from string import Template

from PIL import Image

from freectl.files.sheet import compare_sheet
from freectl.tasks.tour import Stop


def page(stops: Sequence[Stop], about: str, foot: str) -> str:
    """The HTML of a tour; nothing in it is fetched from elsewhere.

    Args:
        about: what this is. foot: where and how long it ran.
    """
    template = Template(files("freectl.tasks").joinpath("tour.html").read_text(encoding="utf-8"))
    return template.substitute(about=escape(about), foot=escape(foot), stops="\n".join(map(_stop, stops)))


def _stop(stop: Stop) -> str:
    parts = [f"<h2>{escape(stop.title)}</h2>", f"<p>{escape(stop.about)}</p>"]
    parts += [f"<pre>{escape(one)}</pre>" for one in stop.commands]
    if stop.cells:
        parts.append(_image(compare_sheet(stop.cells), ", ".join(label for label, _ in stop.cells)))
    if stop.table:
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in stop.table[1:]]
        head = "".join(f"<th>{escape(cell)}</th>" for cell in stop.table[0])
        parts.append(f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
    parts += [f"<p>{escape(one)}</p>" for one in stop.found]
    if stop.inside is not None:
        parts.append(
            f"<details open><summary>inside the run</summary>{_image(stop.inside, 'inside the run')}</details>"
        )
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _image(picture: Image.Image, says: str) -> str:
    stream = BytesIO()
    picture.save(stream, "PNG")
    data = b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(says, quote=True)}" width="{picture.width}">'
