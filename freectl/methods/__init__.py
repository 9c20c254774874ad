"""The registry of methods: a new method is a new file and a line here. Imports no method until one is asked for."""

from importlib import import_module
from typing import Any

from freectl.errors import unknown

REGISTRY: dict[str, str] = {
    "ctrlx": "freectl.methods.ctrlx:CtrlX",
    "ddpm-inversion": "freectl.methods.ddpm_inversion:DDPMInversion",
    "flowedit": "freectl.methods.flowedit:FlowEdit",
    "freecontrol": "freectl.methods.freecontrol:FreeControl",
    "masactrl": "freectl.methods.masactrl:MasaCtrl",
    "p2p": "freectl.methods.p2p:P2P",
    "pix2pix-zero": "freectl.methods.pix2pix_zero:Pix2PixZero",
    "pnp": "freectl.methods.pnp:PnP",
    "sdedit": "freectl.methods.sdedit:SDEdit",
}


def get(name: str, option: str = "--method") -> Any:
    """The method of that name.

    Raises:
        InputError: unknown name; the nearest is suggested.
    """
    if name not in REGISTRY:
        raise unknown(option, name, REGISTRY)
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(import_module(module), attribute)()
