"""What a method would do with the words of an edit, told from the tokenizer alone: nothing else of the model loads."""

from typing import Any

from freectl import methods
from freectl.errors import FreectlError, InputError
from freectl.pipelines import loading
from freectl.tasks import options as config
from freectl.tasks.options import EditOptions

FILE_TOKENIZER = "openai/clip-vit-large-patch14"
"""A single-file checkpoint holds no tokenizer; Stable Diffusion's is this one."""


def alignment(options: EditOptions, overrides: dict[str, Any]) -> dict[str, Any]:
    """How the tokens of source and target prompt align.

    Returns:
        Method, model, both prompts, the kind of edit, and for each target token where its attention map comes from.

    Raises:
        InputError: the method aligns no tokens, there is no source prompt, or a setting does not fit the prompts.
        FreectlError: the tokenizer cannot be loaded.
    """
    method = methods.get(options.method)
    if not hasattr(method, "alignment"):
        able = ", ".join(name for name in methods.REGISTRY if hasattr(methods.get(name), "alignment"))
        raise InputError("--align", f"--method {method.name}, which aligns no tokens", f"--method {able}")
    settings = config.method_settings(method, options.preset, overrides)
    if not options.source_prompt.strip():
        raise InputError("--align", "no --source-prompt", "a --source-prompt whose tokens are aligned with --prompt's")
    found = method.alignment(tokenizer_of(options.model), options.source_prompt, options.prompt, settings)
    return {
        "method": method.name,
        "model": options.model,
        "source_prompt": options.source_prompt,
        "prompt": options.prompt,
        **found,
    }


def tokenizer_of(model: str) -> Any:
    """The tokenizer of a `--model`.

    Raises:
        InputError: no such model. FreectlError: its tokenizer cannot be loaded.
    """
    from transformers import CLIPTokenizer

    source = loading.resolve_model(model)
    path, where = (FILE_TOKENIZER, {}) if source.kind == "file" else (source.path, {"subfolder": "tokenizer"})
    try:
        return CLIPTokenizer.from_pretrained(path, **where)
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FreectlError(f"--model {model}: its tokenizer cannot be loaded ({first})") from error
