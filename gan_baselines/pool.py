"""History of generated pictures for the discriminator (arXiv 1612.07828, section 2.3)."""

import random
from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Holds up to `size` pictures. While it fills, pictures pass and are stored; then each is swapped for a random
    stored one with probability 1/2. Size 0 passes everything.

    Its randomness is its own, so that saving and restoring a pool is exact.
    """

    def __init__(self, size: int, seed: int | str = 0) -> None:
        self.size = size
        self._rng = random.Random(seed)
        self._stored: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._stored)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return as many pictures as given, (N, C, H, W), detached."""
        pictures = pictures.detach()
        if self.size == 0:
            return pictures
        return torch.stack([self._pass(picture) for picture in pictures])

    def _pass(self, picture: Tensor) -> Tensor:
        if len(self._stored) < self.size:
            self._stored.append(picture.clone())
            return picture
        if self._rng.random() < 0.5:
            return picture
        index = self._rng.randrange(self.size)
        old, self._stored[index] = self._stored[index], picture.clone()
        return old

    def state(self) -> tuple[dict[str, Any], Tensor | None]:
        """Return JSON-ready random state, and the stored pictures as one tensor (None when empty)."""
        version, numbers, gauss = self._rng.getstate()
        pictures = torch.stack(self._stored) if self._stored else None
        return {"version": version, "numbers": list(numbers), "gauss": gauss}, pictures

    def restore(self, random_state: dict[str, Any], pictures: Tensor | None) -> None:
        """Continue exactly from what `state` returned."""
        self._rng.setstate((random_state["version"], tuple(random_state["numbers"]), random_state["gauss"]))
        self._stored = [] if pictures is None else list(pictures.unbind())
