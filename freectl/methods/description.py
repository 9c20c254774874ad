"""What every method says of itself, whether it runs on the diffusion engine or outside it. Imports no torch."""

from typing import Any, ClassVar

from pydantic import BaseModel


class Description:
    """Attributes of a method's class.

    Attributes:
        name: on the command line.
        summary: one line.
        paper: where it is published.
        equations: what it computes, one equation a line, in plain text; the notation is the paper's.
        settings: closed pydantic class; presets: named overrides of its defaults.
        needs: what it uses besides the target prompt, of "image", "inversion", "gradient".
        inputs: optional inputs it uses, of "concept", "mask", "appearance_image", "conditions".
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    equations: ClassVar[str] = ""
    settings: ClassVar[type[BaseModel]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {"default": {}}
    needs: ClassVar[tuple[str, ...]] = ("image",)
    inputs: ClassVar[tuple[str, ...]] = ()
