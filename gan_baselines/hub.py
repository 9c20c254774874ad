"""Tensor files by their path or by the id of a repository on the hub. Never a pickle."""

import re
from pathlib import Path

from gan_baselines.errors import InputError

_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILE = "model.safetensors"


def tensors_file(place: Path | str, option: str) -> Path | None:
    """The safetensors file that `place` names: a path with that ending, or a hub id such as timm/vgg19.tv_in1k.

    None where it names neither. A file of the hub is fetched once.

    Raises:
        InputError: the hub does not give it, or gives it as a pickle alone.
    """
    path = Path(place)
    if path.suffix == ".safetensors":
        return path
    if path.exists() or not _ID.fullmatch(str(place)):
        return None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(place), FILE))
    except Exception as error:  # the client raises errors of many libraries
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        allowed = f"an existing path, or a hub id with a {FILE}, such as timm/vgg19.tv_in1k"
        raise InputError(option, f"'{place}', which could not be fetched ({why})", allowed) from error
