"""What the readers of all benchmarks' files share."""

import hashlib
import re
from pathlib import Path

from PIL import Image

from freectl.files import pictures

LONGEST_KEY = 200
"""Bytes; file systems take 255, an ending included."""


def read(path: Path, option: str = "--data") -> Image.Image:
    """A benchmark's picture, RGB.

    Raises:
        InputError: no picture.
    """
    return pictures.load_image(path, option).image


def safe_key(key: str) -> str:
    """The key with a hyphen for all that may not stand in a file's name, and cut where it is too long for one."""
    safe = re.sub(r"[^\w.-]+", "-", key)
    if len(safe.encode()) > LONGEST_KEY:
        cut = safe.encode()[: LONGEST_KEY - 9].decode(errors="ignore")
        safe = f"{cut}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return safe
