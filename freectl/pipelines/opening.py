"""Weights from disk or the hub to a pipeline of the right family."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from freectl.errors import FreectlError, InputError
from freectl.files import tensor_files
from freectl.pipelines import checkpoints
from freectl.pipelines.parts import load_parts, parts_of
from freectl.pipelines.unread import explained


def opened(kind: str, path: str, dtype: Any) -> Any:
    """The pipeline of a folder, a single file or a hub id, on the CPU.

    Raises:
        InputError: a model of no family that is known, damaged or not whole.
        FreectlError: not in the hub's local cache while offline.
    """
    location = checkpoints.configuration(path) if kind == "file" else path
    try:
        if kind == "file" and checkpoints.transformer_alone(tensor_files.shapes(path)):
            return _of_transformer(path, location, dtype)
        if kind == "file":
            cls = checkpoints.pipeline_class(location, path)
            pipe = cls.from_single_file(path, config=location, dtype=dtype)
            checkpoints.with_own_schedule(pipe, path)
            pipe.load_warnings = checkpoints.unused_weights(pipe, path)
            _remember(pipe, Path(path))
            return pipe
        folder = _fetched(location) if kind == "hub" else location
        return _of_folder(Path(folder), location, dtype)
    except FreectlError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise explained(kind, path, location, error) from error


def _remember(pipe: Any, file: Path) -> None:
    """Say that network and VAE are what a single file holds; text encoders may come from elsewhere."""
    from freectl.models import families, fingerprint

    for name in (families.of_pipe(pipe).component, "vae"):
        fingerprint.from_files(getattr(pipe, name), [file], name)


def _of_transformer(file: str, location: str, dtype: Any) -> Any:
    """A transformer out of a file of its own, in a folder's or hub id's pipeline in place of that one's."""
    import diffusers
    from safetensors.torch import load_file

    from freectl.models import families, fingerprint

    folder = location if Path(location).is_dir() else _fetched(location, ("transformer",))
    cls = getattr(diffusers, checkpoints.family_of(folder, file).network)
    if not hasattr(cls, "from_single_file"):
        found = f"file '{file}' of a {cls.__name__}, of which diffusers reads no single file"
        raise InputError("--model", found, "a folder or hub id")
    held: Any = file
    if any(name != checkpoints.without_prefix(name) for name in tensor_files.shapes(file)):  # some layouts keep it
        held = {checkpoints.without_prefix(name): tensor for name, tensor in load_file(file).items()}
    network = cls.from_single_file(held, config=folder, subfolder="transformer", dtype=dtype)
    fingerprint.from_files(network, [Path(file)])
    return _of_folder(Path(folder), file, dtype, {families.networks()[cls.__name__]: network})


def _fetched(hub_id: str, without: Sequence[str] = ()) -> str:
    """The folder of a hub's model: whole in the local cache, but for parts `without`, or fetched into it."""
    from diffusers import DiffusionPipeline

    cached = checkpoints.snapshot(hub_id)
    if cached is not None:
        with suppress(InputError):  # parts that were not fetched yet
            checkpoints.check_folder(cached, hub_id, without)
            return str(cached)
    return DiffusionPipeline.download(hub_id, use_safetensors=True)


def _of_folder(folder: Path, name: str, dtype: Any, given: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The pipeline of a folder, with the parts that are given in place of its own."""
    cls = checkpoints.pipeline_class(str(folder), name)
    index = {part: entry for part, entry in cls.load_config(str(folder)).items() if part not in given}
    networks, notes = load_parts(str(folder), parts_of(folder, index, name), dtype)
    pipe = cls.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, **networks, **given)
    pipe.load_warnings = tuple(notes)
    return pipe
