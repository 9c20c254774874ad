"""Where the cache lies and how large it may grow, by environment variables."""

import math
import os
from pathlib import Path

import platformdirs

from freectl.errors import InputError
from freectl.files.paths import at_home


def cache_root() -> Path:
    """Return the cache folder: `FREECTL_HOME`, else the platform's user cache."""
    home = os.environ.get("FREECTL_HOME")
    return at_home(home) if home else Path(platformdirs.user_cache_dir("freectl"))


def cache_limit() -> int:
    """Return the size limit in bytes: `FREECTL_CACHE_LIMIT_GB` (1 GB = 10^9 bytes, >= 0), else 10 GB.

    Raises:
        InputError: the variable is not such a number.
    """
    text = os.environ.get("FREECTL_CACHE_LIMIT_GB") or "10"
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not (limit >= 0 and math.isfinite(limit)):
        raise InputError("FREECTL_CACHE_LIMIT_GB", f"'{text}'", "a number of gigabytes, 0 or more")
    return int(limit * 1e9)
