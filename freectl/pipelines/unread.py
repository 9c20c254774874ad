"""What a user can do about a model that could not be read."""

from pathlib import Path

from freectl.errors import FreectlError, InputError
from freectl.files import tensor_files
from freectl.pipelines.accounts import some
from freectl.pipelines.checkpoints import ALLOWED, lacking, transformer_alone


def explained(kind: str, path: str, location: str, error: Exception) -> FreectlError:
    """What a user can do about a model that could not be read; arguments as of a `Source`, and where it was looked."""
    first, unread = _first_line(error), "not in the local hub cache, and the hub could not be read; connect once with"
    if kind == "hub":
        return FreectlError(
            f"--model {path}: {unread} `hf download {location}`, or use --model mini or a folder ({first})"
        )
    if kind == "file" and not Path(location).is_dir():
        files, beside = "--include '*.json' --include '*.txt'", Path(path).with_suffix("")
        needed = "configuration and tokenizer"
        if transformer_alone(tensor_files.shapes(path)):
            files, needed = "--exclude 'transformer/*.safetensors'", "VAE, text encoders and configuration"
        return FreectlError(
            f"--model {path}: its {needed} are those of {location}, {unread} "
            f"`hf download {location} {files}`, or put these files in a folder '{beside}' ({first})"
        )
    if kind == "file" and "meta tensor" in first:  # what the networks' loader says where weights are missing
        first = f"its file lacks {some(lacking(path, location))}, of its weights"
    found = f"'{path}', which cannot be loaded ({first})"
    return InputError("--model", found, f"whole weights and configuration of {ALLOWED}, safetensors")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
