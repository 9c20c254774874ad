"""The setting `inverter` of methods that invert the picture, and where it has a meaning."""

from typing import Any

from pydantic import BaseModel

from freectl.errors import InputError
from freectl.methods.setting import setting
from freectl.models.families.base import Family


def inverter() -> Any:
    """The field; `freectl.denoising.inverters` has the schemes."""
    return setting(
        "euler",
        "how the inversion steps up a flow: by Euler's rule, by midpoints (two rows a step), by the last step's "
        "midpoint (one row), or so that Euler's steps down undo it (one row)",
        unit="choice",
        source="midpoint: arXiv 2411.04746; fireflow: 2412.07517; uniedit: 2504.13109",
    )


def check_inverter(settings: BaseModel, family: Family) -> None:
    """Check the setting `inverter` of settings that have it.

    Raises:
        InputError: another than Euler's rule on a model that is no flow, or told the level above.
    """
    chosen = getattr(settings, "inverter", "euler")
    if chosen != "euler" and not family.flow:
        raise InputError("--set inverter", f"{chosen} on a {family.name} model, which is no flow", "euler")
    if chosen != "euler" and getattr(settings, "inversion_at", "lower") == "upper":
        raise InputError("--set inversion_at", f"upper with inverter={chosen}", "lower, or inverter=euler")
