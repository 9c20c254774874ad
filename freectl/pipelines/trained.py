"""Trained control networks beside a model that is not loaded yet."""

import json
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files.paths import is_file
from freectl.pipelines import checkpoints
from freectl.pipelines.loading import Source


def check_trained(method: Any, settings: Any, source: Source) -> None:
    """Check that a method's trained control network is there and fits the model, as far as configurations tell.

    Raises:
        InputError: it does not.
    """
    from freectl.models import families

    if source.name == "mini":
        family: Any = families.MINI
    else:
        try:
            family = checkpoints.family_of(
                checkpoints.configuration(source.path) if source.kind == "file" else source.path, source.path
            )
        except InputError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError):
            return
    own = Path(source.path) if source.kind == "folder" else None
    file = None if own is None else own / family.component / "config.json"
    network = json.loads(file.read_text(encoding="utf-8")) if file is not None and is_file(file) else None
    method.check_files(settings, None if own is None else str(own), family, network)
