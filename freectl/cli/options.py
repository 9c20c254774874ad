"""What a command line asks for: a config file first, then flags; method settings apart from run options."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from freectl.cli import panels
from freectl.cli.trust import check_trusted
from freectl.errors import InputError
from freectl.files.data import EMBEDDED
from freectl.methods import FLAGS

SHORTCUTS = ("structure_strength", "appearance_weight", "controlnet", *FLAGS)
"""Flags that are settings of methods."""
MODEL_NAMES = "|".join((*EMBEDDED, "DIR", "FILE.safetensors", "HUB_ID"))
"""What `--model` takes, as help shows it."""
Given = dict[str, Any]

# Options that edit and control share
Prompt = Annotated[
    str | None, panels.what(help="What the result shows: a description, not an instruction.", metavar="TEXT")
]
Output = Annotated[Path | None, panels.result(help="Where the result goes: .png .jpg .jpeg .webp.  [default: out.png]")]
Overwrite = Annotated[
    bool,
    panels.result("--overwrite", help="Replace a result of other settings; else the new one is numbered, NAME_2.png."),
]
GanWeights = Annotated[
    str | None,
    panels.model(help="Trained generator of the method gan: a folder, or a shipped name.", metavar="DIR|NAME"),
]
GanDirection = Annotated[
    str | None, panels.model(help="Which way it translates.  [default: AB, or its only one]", metavar="AB|BA")
]
Verbose = Annotated[bool, panels.machine("--verbose", "-v", help="Also print device, dtype and cost.")]
TrustRecord = Annotated[
    bool,
    panels.model("--trust-record", help="Fetch the model that the --config names, also if the hub has to be asked."),
]
Background = Annotated[
    str | None,
    panels.what(help="Colour on which transparent pictures lie.  [default: white]", metavar="NAME|#RRGGBB"),
]
NegativePrompt = Annotated[str | None, panels.what(help="What the result should not show.")]
Steps = Annotated[int | None, panels.strong(help="DDIM steps, 1 to 1000.  [default: 50]")]
Seed = Annotated[int | None, panels.strong(help="Seed of the CPU generator.  [default: 0]")]
GuidanceScale = Annotated[
    float | None, panels.strong(help="Classifier-free guidance, 0 to 100.  [default: 7.5; mini 4, 3 with freecontrol]")
]
StructureStrength = Annotated[
    float | None, panels.strong(help="How firmly the structure holds in FreeControl, 0 to 1.  [default: 0.6]")
]
AppearanceWeight = Annotated[
    float | None, panels.strong(help="How firmly the appearance holds, 0 and up: lambda_a of FreeControl.")
]
AppearanceImage = Annotated[str | None, panels.what(help="Take the appearance of this picture.", metavar="PATH")]
Lora = Annotated[
    list[str] | None,
    panels.model(help="LoRA weights, .safetensors, with a strength if not 1; may repeat.", metavar="PATH[:STRENGTH]"),
]
TextualInversion = Annotated[
    list[str] | None, panels.model(help="New word for prompts, .safetensors; may repeat.", metavar="PATH")
]
LongPrompts = Annotated[
    bool | None,
    panels.what(
        "--long-prompts/--no-long-prompts",
        help="Read texts in pieces that are longer than the text encoder reads (77 tokens; mini 24).",
        show_default=False,
    ),
]
Device = Annotated[str | None, panels.machine(help="auto, cpu, cuda, cuda:1, mps.  [default: auto]")]
Dtype = Annotated[str | None, panels.machine(help="auto, fp32, fp16, bf16.  [default: auto]")]
VaeTiling = Annotated[
    bool | None,
    panels.machine(
        "--vae-tiling/--no-vae-tiling",
        help="Encode and decode large pictures in tiles of 512 px, which takes less memory.",
        show_default=False,
    ),
]
Offload = Annotated[str | None, panels.machine(help="none, model, sequential.  [default: none]")]
Preset = Annotated[str | None, panels.strong(help="Named settings of the method.  [default: default]")]
Assignments = Annotated[
    list[str] | None, panels.strong("--set", help="A setting of the method; may repeat.", metavar="KEY=VALUE")
]
Explain = Annotated[
    Path | None,
    panels.result(
        help="Folder for what was seen inside: masks, semantic components, energies, estimates, cost, as picture and "
        "JSON.",
        metavar="DIR",
    ),
]
UseCache = Annotated[bool, panels.machine("--cache/--no-cache", help="Keep and reuse inversions and bases on disk.")]


def gathered(
    context: typer.Context, names: Collection[str], split: Callable[[Given], tuple[Given, Given]]
) -> tuple[Given, Given]:
    """Run options and method settings that were given.

    Args:
        names: flags that are run options. split: a config file's mapping as options and settings.

    Raises:
        InputError: the config file cannot be used, or a setting without a value.
    """
    from freectl.files.record import read_config
    from freectl.tasks.options import parse_assignments

    # what repeats and is not given is an empty list or tuple
    given = {name: value for name, value in context.params.items() if value is not None and value not in ([], ())}
    flags = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if name in names}
    settings: Given = dict(parse_assignments(given.get("set_", [])))
    for name in SHORTCUTS:
        if name in given and name in settings:
            raise InputError(f"--{name.replace('_', '-')}", f"given with --set {name}", "one of the two")
    settings |= {name: given[name] for name in SHORTCUTS if name in given}
    if "config" not in given:
        return flags, settings
    record = read_config(given["config"])
    options, of_file = split(record)
    if not given.get("trust_record"):
        check_trusted(given["config"], record, options, flags)
    # Settings of another method or preset than the file's would not fit, and are not wanted.
    if any(flags.get(name, options[name]) != options[name] for name in ("method", "preset") if name in options):
        of_file = {}
    return options | flags, of_file | settings


def require(given: Given, name: str, allowed: str) -> None:
    """Refuse a command line without an option that it needs.

    Raises:
        InputError: neither flag nor config file has it.
    """
    if name not in given:
        raise InputError(f"--{name}", "nothing", allowed)
