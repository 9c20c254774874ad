"""The size in pixels at which a model works on a picture."""

from typing import Any

from freectl.errors import InputError
from freectl.files import pictures
from freectl.models import families
from freectl.models.vae_codec import factor_of


def working_size(original: tuple[int, int], pipe: Any) -> tuple[int, int]:
    """Width and height in px at which a pipeline's model works on a picture of `original` size.

    Raises:
        InputError: the network's configuration does not say what size it was trained for.
    """
    network = families.network_of(pipe)
    family = families.of_pipe(pipe)
    if getattr(network.config, "sample_size", 0) is None:
        allowed = "the side of the latents that the model was trained for, such as 64"
        raise InputError("--model", "a network whose config.json says no sample_size", allowed)
    base = max(family.latent_shape(network)[1:]) * factor_of(pipe.vae)
    multiple = max(8, factor_of(pipe.vae) * family.patch(network))
    return pictures.working_size(original, base, multiple, square=family.square)
