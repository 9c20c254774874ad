"""The size in pixels at which a model works on a picture."""

from typing import Any

from freectl.files import pictures
from freectl.models import families
from freectl.models.vae_codec import factor_of


def working_size(original: tuple[int, int], pipe: Any) -> tuple[int, int]:
    """Width and height in px at which a pipeline's model works on a picture of `original` size."""
    network = families.network_of(pipe)
    family = families.of(network)
    base = max(family.latent_shape(network)[1:]) * factor_of(pipe.vae)
    return pictures.working_size(original, base, square=family.square)
