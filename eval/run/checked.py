"""A variant's settings and options, checked against its method before anything is loaded."""

from dataclasses import dataclass
from typing import Any

from eval.bench.cases import Case
from eval.run.variants import Variant
from freectl.errors import InputError

MASKS = ("none", "attention", "exact")
CONCEPTS = ("none", "source")
APPEARANCES = ("none", "example")


@dataclass(frozen=True)
class Checked:
    """A variant's settings and the options of its runs, checked; nothing has been loaded.

    Attributes:
        mask: "none"; "attention", where the source's object is seen; or "exact", the case's own object mask.
        concept: "source": bases of the object of the source; "none": the family's general ones.
        appearance: "example": the case's picture whose looks are taken; what methods of pictures do by default.
        kinds: of the cases that it is asked for; empty for all.
    """

    variant: Variant
    method: Any
    settings: Any
    mask: str = "none"
    concept: str = "none"
    guidance_scale: float | None = None
    negative_prompt: str = ""
    appearance: str = "none"
    kinds: tuple[str, ...] = ()

    def applies(self, case: Case) -> bool:
        """Any case of its kinds, unless the settings need what it lacks."""
        if self.kinds and case.kind not in self.kinds:
            return False
        lacks_mask = self.mask == "exact" and case.scenes is None and case.control is None
        lacks_picture = self.appearance == "example" and case.appearance is None
        return not lacks_mask and not lacks_picture and not (self.concept == "source" and case.concept is None)


def check(variant: Variant, control: bool = False, paired: bool = False) -> Checked:
    """Check a variant that is no trained generator without loading weights; imports torch.

    Args:
        control: whether it is to follow conditions, as in `freectl control`.
        paired: whether each comes with an appearance picture: methods that take one are given it by default.

    Raises:
        InputError: unknown method, preset or setting; a value out of range; an input the method does not use.
    """
    from freectl import methods
    from freectl.tasks import options
    from freectl.tasks.control import from_noise

    if control and variant.method in methods.OUTSIDE:
        raise InputError("--methods", f"{variant.method}, which takes no condition", "methods of `freectl control`")
    if not control and variant.method in methods.CONTROL:
        raise InputError(
            "--methods", f"{variant.method}, which edits no picture", "--bench mini-control, or conditions"
        )

    method = methods.get(variant.method, "--methods")
    values = dict(variant.values)
    mask = _choice("mask", values.pop("mask", "none"), MASKS)
    concept = _choice("concept", values.pop("concept", "source" if mask == "attention" else "none"), CONCEPTS)
    outside = variant.method in methods.OUTSIDE
    given_looks = outside or (paired and "appearance_image" in method.inputs)
    looks = _choice("appearance", values.pop("appearance", "example" if given_looks else "none"), APPEARANCES)
    kinds = tuple(one.strip() for one in values.pop("kinds", "").split("+") if one.strip())
    # methods outside read no words
    scale = None if outside else _scale(values.pop("guidance_scale", None))
    negative = "" if outside else values.pop("negative_prompt", "")
    own = from_noise(method) if control else {}
    settings = options.method_settings(method, variant.preset, own | values)
    if mask == "attention" and not {"mask", "concept"} <= set(method.inputs):
        raise InputError(
            "--set mask",
            f"attention for {variant.method}, which reads no concept's",
            "none, exact" if "mask" in method.inputs else "none",
        )
    inputs = {"mask": mask, "concept": concept, "appearance_image": looks}
    given = [name for name, value in inputs.items() if value != "none"]
    if control and "conditions" in method.inputs:
        # of a condition, whose mask and concept are the condition's own
        given = [
            "conditions",
            *(name for name in given if name not in ("mask", "concept") or name not in method.inputs),
        ]
    method.check(settings, given)
    settings = method.resolved(settings) if outside else settings
    return Checked(variant, method, settings, mask, concept, scale, negative, looks, kinds)


def _choice(key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"--set {key}", repr(value), ", ".join(allowed))
    return value


def _scale(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        scale = float(value)
    except ValueError:
        scale = -1.0
    if not 0 <= scale <= 100:
        raise InputError("--set guidance_scale", repr(value), "a number from 0 to 100")
    return scale
