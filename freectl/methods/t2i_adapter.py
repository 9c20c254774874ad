"""T2I-Adapter (Mou et al., AAAI 2024, arXiv 2302.08453): a small trained network of the condition alone."""

from typing import Any

from PIL import Image

from freectl.denoising.taps import More
from freectl.errors import InputError
from freectl.methods.controlnet import pixels
from freectl.methods.trained_control import TrainedControl, TrainedSettings
from freectl.models.engine import Engine


class T2IAdapter(TrainedControl[TrainedSettings]):
    """Features of the condition, made once, added after each level of the encoder."""

    name = "t2i-adapter"
    kind = "t2i-adapter"
    summary = "features of a small trained network of the condition are added to the encoder; --controlnet names it"
    paper = (
        "Mou et al., T2I-Adapter: Learning Adapters to Dig out More Controllable Ability, AAAI 2024, arXiv 2302.08453"
    )
    equations = """
h_l <- h_l + w F_l(condition),  l = the levels of the UNet's encoder;  F = the adapter, run once
then eps = eps_u + s (eps_c - eps_u), both halves steered
"""
    settings = TrainedSettings

    def more(self, engine: Engine, network: Any, picture: Image.Image, settings: TrainedSettings) -> More:
        """Features for the rows of a forward.

        Raises:
            InputError: the picture's sides are no multiples of what the adapter folds into one place.
        """
        factor = network.config.downscale_factor
        for name, side in zip(("--width", "--height"), picture.size, strict=True):
            if side % factor:
                raise InputError(name, str(side), f"a multiple of {factor} for this adapter")
        shown = pixels(engine, picture.convert("L") if network.config.in_channels == 1 else picture)
        features = [settings.scale * one for one in network(shown)]

        def more(args: tuple, _kwargs: dict[str, Any]) -> dict[str, Any]:
            rows = args[0].shape[0]
            return {
                # the UNet empties the list and adds in place
                "down_intrablock_additional_residuals": [one.expand(rows, -1, -1, -1).clone() for one in features]
            }

        return more
