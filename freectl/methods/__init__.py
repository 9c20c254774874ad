"""The registry of methods: a new method is a new file and a line here. Imports no method until one is asked for."""

from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from typing import Any

from freectl.errors import InputError, unknown

REGISTRY: dict[str, str] = {
    "ctrlx": "freectl.methods.ctrlx:CtrlX",
    "ddpm-inversion": "freectl.methods.ddpm_inversion:DDPMInversion",
    "flowedit": "freectl.methods.flowedit:FlowEdit",
    "freecontrol": "freectl.methods.freecontrol.method:FreeControl",
    "masactrl": "freectl.methods.masactrl.method:MasaCtrl",
    "p2p": "freectl.methods.p2p.method:P2P",
    "pix2pix-zero": "freectl.methods.pix2pix_zero.method:Pix2PixZero",
    "pnp": "freectl.methods.pnp:PnP",
    "rf-inversion": "freectl.methods.rf_inversion:RFInversion",
    "sdedit": "freectl.methods.sdedit:SDEdit",
}

CONTROL: dict[str, str] = {
    "controlnet": "freectl.methods.controlnet:ControlNet",
    "t2i-adapter": "freectl.methods.t2i_adapter:T2IAdapter",
}
"""Methods of `freectl control` alone, each with a trained network of its own."""
OUTSIDE: dict[str, str] = {"gan": "eval.gans.method:Gan", "style-transfer": "eval.gans.style:StyleTransfer"}
"""Methods that run no diffusion model and live outside this package, as `freectl.tasks.outside` says; names of their
settings start with the first word of the method's."""
FLAGS = ("gan_weights", "gan_direction")
"""Settings of methods outside that have a flag of their own."""
_CHECKOUT = "a checkout: installed by `pip install -e .`, or its folder on PYTHONPATH"


def get(name: str, option: str = "--method") -> Any:
    """The method of that name.

    Raises:
        InputError: unknown name, the nearest is suggested; or one whose module is not there.
    """
    places = REGISTRY | CONTROL | OUTSIDE
    if name not in places:
        raise unknown(option, name, places)
    module, _, attribute = places[name].partition(":")
    try:
        return getattr(import_module(module), attribute)()
    except ModuleNotFoundError as error:
        if name not in OUTSIDE or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(option, f"'{name}', whose module {module} is not installed with freectl", _CHECKOUT) from None


def available() -> list[Any]:
    """All methods that can be had here: the registered ones, and of those outside what is installed."""
    found = [get(name) for name in (*REGISTRY, *CONTROL)]
    for name in OUTSIDE:
        with suppress(InputError):
            found.append(get(name))
    return found


def of_conditions() -> list[str]:
    """Methods that follow condition pictures as such; others edit a single one as the picture it is."""
    return [name for name in (*REGISTRY, *CONTROL) if "conditions" in get(name).inputs]


def of_pictures() -> list[str]:
    """Methods outside that can be had here and take an appearance picture."""
    return [one.name for one in available() if one.name in OUTSIDE and "appearance_image" in one.inputs]


def following() -> list[str]:
    """Methods outside that can be had here and make pictures of a condition."""
    return [one.name for one in available() if one.name in OUTSIDE and one.follows]


def outsider(setting: str) -> str | None:
    """The outside method whose setting that is by its name, or None."""
    return next((name for name in OUTSIDE if setting.startswith(f"{name.partition('-')[0]}_")), None)


def check_asked(names: Collection[str], settings: Collection[str]) -> None:
    """Settings of an outside method are of use to that method alone.

    Raises:
        InputError: the method of one of `settings` is not among `names`.
    """
    for setting in settings:
        owner = outsider(setting)
        if owner is not None and owner not in names:
            allowed = f"--method {owner}, also among others: pnp,{owner} or all"
            option = f"--{setting.replace('_', '-')}" if setting in FLAGS else f"--set {setting}"
            raise InputError(option, f"given to {', '.join(names)}", allowed)
