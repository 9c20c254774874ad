"""Style transfer by optimising the picture itself (Gatys et al., CVPR 2016, arXiv 1508.06576): nothing is trained."""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from gan_baselines.errors import GanError
from gan_baselines.losses import gram, l2
from gan_baselines.networks import FeatureNet

CONTENT = "relu4_2"
STYLE_WEIGHT = 1e3
"""Of each layer, over its squared number of channels: the published notebook's, whose content weighs 1."""
FIRST_SIDE = 512
FINER_SHARE = 0.4
"""200 of the notebook's 500 evaluations are those of the larger picture."""


class Energy:
    """||f_c(x) - f_c(c)||^2 + w sum_l 1e3 / C_l^2 ||Gr(f_l(x)) - Gr(f_l(s))||^2 with Gr = F F^T / (H W).

    Squares are means. f_c is relu4_2 (with fewer stages the last one's second activation), f_l the first of each
    stage. The published weights belong to a network whose activations have the mean 1: so each layer is divided by its
    mean over both pictures.

    Args:
        content, style: (1, 3, H, W) in [-1, 1], of any two sizes.
    """

    def __init__(self, net: FeatureNet, content: Tensor, style: Tensor, weight: float = 1.0) -> None:
        self.net, self.weight = net, weight
        last = min(len(net.stages), 4)
        self.content_place = net.place(f"relu{last}_{min(net.stages[last - 1][1], 2)}")
        self.style_places = net.first_places
        self.count = 1 + max(self.content_place, *self.style_places)
        with torch.no_grad():
            own, other = net(content, self.count), net(style, self.count)
            self.scales = [2 / (a.mean() + b.mean()).clamp_min(1e-6) for a, b in zip(own, other, strict=True)]
            self.content = own[self.content_place] * self.scales[self.content_place]
            self.grams = [gram(other[place] * self.scales[place]) for place in self.style_places]

    def __call__(self, x: Tensor) -> Tensor:
        """The energy of a picture (1, 3, H, W), a scalar."""
        found = [h * scale for h, scale in zip(self.net(x, self.count), self.scales, strict=True)]
        apart = [
            STYLE_WEIGHT / found[place].shape[1] ** 2 * l2(gram(found[place]), wanted).mean()
            for place, wanted in zip(self.style_places, self.grams, strict=True)
        ]
        return l2(found[self.content_place], self.content).mean() + self.weight * torch.stack(apart).sum()


def planned(longest: int, evaluations: int) -> int:
    """Evaluations of both sizes together, for a picture with that longer side in px."""
    return evaluations + (ceil(FINER_SHARE * evaluations) if longest > FIRST_SIDE else 0)


def optimised(
    content: Tensor,
    style: Tensor,
    net: FeatureNet,
    *,
    weight: float = 1.0,
    evaluations: int = 500,
    after_each: Callable[[], object] = lambda: None,
) -> Tensor:
    """A picture (3, H, W) in [-1, 1] with the content of one and the style of another, both (3, H, W).

    L-BFGS from the content picture. Where its longer side is above 512 px, `evaluations` are made at 512 px and two
    fifths as many at full size from the enlarged result. Nothing is drawn at random.

    Args:
        net: with means for pooling, as published, or maxima. weight: factor of the published style weights.
        after_each: called `planned` times, after an evaluation each; what it raises ends the run.

    Raises:
        GanError: the energy became infinite or not a number.
    """
    whole, other = _at_least(content, net), _at_least(style, net)
    longest, start = max(whole.shape[-2:]), whole
    if longest > FIRST_SIDE:
        coarse = [_at_least(_scaled(x, FIRST_SIDE / longest)[0], net) for x in (whole, other)]
        made = _descended(coarse[0], coarse[0], coarse[1], net, weight, evaluations, after_each)
        start = functional.interpolate(made, size=whole.shape[-2:], mode="bicubic", antialias=True)
        evaluations = planned(longest, evaluations) - evaluations
    made = _descended(whole, start, other, net, weight, evaluations, after_each)
    return made[0, :, : content.shape[-2], : content.shape[-1]].clamp(-1, 1)


def _descended(
    content: Tensor,
    start: Tensor,
    style: Tensor,
    net: FeatureNet,
    weight: float,
    evaluations: int,
    after_each: Callable[[], object],
) -> Tensor:
    energy, x = Energy(net, content, style, weight), start.clone(memory_format=torch.contiguous_format).requires_grad_()
    # the published code takes whole steps; a line search keeps extreme weights from running off
    steps = torch.optim.LBFGS([x], max_iter=evaluations, max_eval=evaluations, history_size=20, tolerance_change=0,
                              tolerance_grad=0, line_search_fn="strong_wolfe")  # fmt: skip
    untold = evaluations

    def tell() -> None:
        nonlocal untold
        if untold:  # the last line search may take a few more than asked for
            untold -= 1
            after_each()

    def closure() -> Tensor:
        steps.zero_grad()
        value = energy(x)
        value.backward()
        tell()
        return value

    steps.step(closure)
    while untold:  # a minimum ends it early
        tell()
    if not torch.isfinite(x).all():
        raise GanError("the energy became infinite or not a number: a smaller style weight, or other features")
    return x.detach()


def _at_least(picture: Tensor, net: FeatureNet) -> Tensor:
    """With its edges repeated to the side that the network can halve in each stage, (1, 3, H, W)."""
    height, width = picture.shape[-2:]
    side = 2 ** len(net.stages)
    return functional.pad(picture[None], (0, max(0, side - width), 0, max(0, side - height)), mode="replicate")


def _scaled(picture: Tensor, share: float) -> Tensor:
    size = [max(1, round(side * share)) for side in picture.shape[-2:]]
    return functional.interpolate(picture, size=size, mode="bicubic", antialias=True)
