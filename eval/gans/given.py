"""A trained generator of `gan_baselines` as one more method: `--methods gan --gan-weights FOLDER`.

A translating generator knows one direction between two sets of pictures and reads no prompt, so it is asked only for
cases that go from its source style to its target style.
"""

from pathlib import Path
from typing import overload

from eval.bench.cases import Case
from eval.gans.method import FOLDER, OPTION, translated_errors
from freectl.errors import InputError
from freectl.mini.domain import STYLES

_FOLDER = f"[NAME=]{FOLDER}"


def applies(case: Case, styles: tuple[str, str] | None) -> bool:
    """Whether a generator trained from one style to another can be asked: the style alone changes, in that direction.

    Any case where no scenes or no styles are known.
    """
    if case.scenes is None or styles is None:
        return True
    source, target = case.scenes
    same = (source.object, source.background) == (target.object, target.background)
    return same and (source.style, target.style) == styles


@overload
def parse_styles(text: str, option: str = ...) -> tuple[str, str]: ...
@overload
def parse_styles(text: str | None, option: str = ...) -> tuple[str, str] | None: ...
def parse_styles(text: str | None, option: str = "--gan-styles") -> tuple[str, str] | None:
    """ "noto:fluent" as a pair.

    Raises:
        InputError: not two different styles.
    """
    if text is None:
        return None
    first, _, second = text.partition(":")
    if first not in STYLES or second not in STYLES or first == second:
        raise InputError(option, repr(text), f"FROM:TO, two of {', '.join(STYLES)}")
    return first, second


def parse_weights(texts: list[str]) -> dict[str, Path]:
    """`[NAME=]FOLDER` texts by name; the default name is the model's.

    Raises:
        InputError: a folder without readable weights, or a name that occurs twice.
    """
    from gan_baselines.weights import read_record

    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        folder = Path(path if equals else text)
        with translated_errors():
            record = read_record(folder, OPTION)
        name = name if equals else str(record["model"]["name"])
        if name in found:
            raise InputError(OPTION, f"two folders named '{name}'", _FOLDER)
        found[name] = folder
    return found
