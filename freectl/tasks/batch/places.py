"""Where the files that rows name lie: relative to the manifest, and in its folder unless more is allowed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freectl.errors import InputError
from freectl.files import remote
from freectl.files.paths import there
from freectl.pipelines import lora
from freectl.pipelines.loading import HUB_ID

PICTURES = ("image", "mask", "keep", "appearance_image")
ADAPTERS = ("lora", "textual_inversion")
NAMES_OR_FILES = ("bases", "gan_weights")
"""Settings of methods that may name a file."""
WORDS = {"mask": ("none", "attention"), "keep": ("none",)}
"""Values of these that name no file."""
OUTSIDE = "paths below the manifest's folder, or --allow-outside"


@dataclass(frozen=True)
class Places:
    """Where rows look for files.

    Attributes:
        manifest: path or address of the manifest; "" = rows of a caller, whose paths are taken as they are.
        allow_outside: whether rows may read what is not below the manifest's folder, and ask the hub for models.
    """

    manifest: str = ""
    allow_outside: bool = False

    def resolved(self, values: dict[str, Any], said: str) -> dict[str, Any]:
        """A row's options and settings, with its paths as this process reaches them.

        Args:
            said: the row in messages, such as "row 3".

        Raises:
            InputError: a path that leads outside, or a model of the hub, where that is not allowed.
        """
        if not self.manifest:
            return values
        return {name: self._value(name, value, said) for name, value in values.items()}

    def _value(self, name: str, value: Any, said: str) -> Any:
        if isinstance(value, list):
            return [self._value(name, one, said) for one in value]
        if not isinstance(value, str) or value in WORDS.get(name, ()):
            return value
        if name == "model":
            return self._model(value, said)
        if name == "lora":
            path = str(lora.parse(value).path)
            return self._path(path, value, said) + value[len(path) :]
        unnamed = name in NAMES_OR_FILES and os.sep not in value and not there(self._joined(value))
        named = name in (*PICTURES, *ADAPTERS, *NAMES_OR_FILES)
        return self._path(value, value, said) if named and not unnamed else value

    def _model(self, value: str, said: str) -> str:
        if there(self._joined(value)):
            return self._path(value, value, said)
        if HUB_ID.fullmatch(value) and not self.allow_outside:
            raise InputError("--manifest", f"{said} with the model '{value}' of the hub", "--model, or --allow-outside")
        return value

    def _joined(self, path: str) -> str:
        if remote.is_remote(path):
            return path
        if remote.is_remote(self.manifest):
            return remote.joined(self.manifest, path)
        return os.path.join(os.path.dirname(self.manifest), os.path.expanduser(path))

    def _path(self, path: str, value: str, said: str) -> str:
        found = self._joined(path)
        if not self.allow_outside and not self._inside(found):
            raise InputError("--manifest", f"{said} with '{value}', outside the manifest's folder", OUTSIDE)
        return found

    def _inside(self, path: str) -> bool:
        if remote.is_remote(self.manifest) or remote.is_remote(path):
            return remote.inside(path, self.manifest.rpartition("/")[0])
        try:
            # links are followed: one that leads outside leads outside
            folder = Path(self.manifest).resolve().parent
            return Path(path).resolve().is_relative_to(folder)
        except (OSError, ValueError, RuntimeError):
            return False
