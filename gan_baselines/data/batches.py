"""Batches as a function of the step: order and draws follow from the seed, so resuming needs no state."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from math import ceil
from pathlib import Path

import torch

from gan_baselines.config import Layout, RunConfig
from gan_baselines.data.augment import crop_flip, distort, recolour
from gan_baselines.data.complete import completed
from gan_baselines.data.folders import Split, find_sources, styled_sources
from gan_baselines.data.marks import marked
from gan_baselines.data.pictures import to_range
from gan_baselines.data.sets import PictureSet
from gan_baselines.errors import InputError

Batch = dict[str, torch.Tensor]


class Batches:
    """Shuffled, augmented batches of a folder.

    Paired sides share order, crop and flip; unpaired sides have their own. An epoch is one pass over the larger side.
    The stream runs on over epoch ends, so no picture is dropped and no batch is short. Label maps, "A", keep their
    numbers, instances as a second channel; classes come as "class" (N,), captions as "words" (N, length).

    Attributes:
        config: the settings, completed by what only the data knows.
    """

    def __init__(self, root: Path, config: RunConfig, layout: Layout, split: Split = "train") -> None:
        style = config.data.style
        if style and layout != "unpaired":
            raise InputError(
                "--style", f"'{style}' for {config.model.name}", "a model of two collections, such as adain"
            )
        sources = styled_sources(root, Path(style)) if style else find_sources(root, layout, split)
        self.config = config = completed(config, sources)
        self.paired, data = layout in ("paired", "labelled"), config.data
        if layout == "labelled" and (data.rotate or data.stretch):
            raise InputError("--set data.rotate", "distortions of label maps", "data.rotate=0 and data.stretch=0")
        self.marks = next((marked(config.model, source.marks) for source in sources.values() if source.marks), {})
        self.sets = {
            side: PictureSet(found, data.load_size, config.model.form(side)) for side, found in sources.items()
        }
        first = next(iter(self.sets.values()))
        if any((s.width, s.height) != (first.width, first.height) for s in self.sets.values()):
            sizes = ", ".join(f"{side} {s.width}x{s.height} px" for side, s in self.sets.items())
            raise InputError("--data", f"sides of different sizes ({sizes})", "equal sizes, or --set data.load_size=N")
        self.size = (data.size, data.size) if data.size else (first.height, first.width)
        if self.size[0] > first.height or self.size[1] > first.width:
            found = f"{self.size[0]} px from pictures of {first.width}x{first.height} px"
            raise InputError("--set data.size", found, "at most the pictures' size, or --set data.load_size=N")
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: tuple[tuple[int, int, int], Future[Batch]] | None = None

    def __len__(self) -> int:
        """Pictures in an epoch."""
        return max(len(part) for part in self.sets.values())

    def load(self) -> None:
        """Decode the sides that fit in memory; the others are read batch by batch.

        Raises:
            InputError: a damaged file.
        """
        for part in self.sets.values():
            part.load(self.config.data.memory_mb)

    def fingerprint(self) -> dict[str, str]:
        """Digest of each side."""
        return {side: part.fingerprint() for side, part in self.sets.items()}

    def total_steps(self, world: int = 1) -> int:
        """Optimiser steps of the whole training on `world` processes."""
        train = self.config.train
        return train.steps or ceil(train.epochs * len(self) / (train.batch_size * world))

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of `step` (0-based) for process `rank`: pictures are float (batch, C, H, W) in [-1, 1]."""
        if all(part.in_memory for part in self.sets.values()):
            return self._made(step, rank, world)
        # files are read one step ahead; a batch depends on nothing but its step, so this changes no result
        wanted, asked = self._ahead if self._ahead else (None, None)
        ready = asked.result() if asked and wanted == (step, rank, world) else self._made(step, rank, world)
        self._reader = self._reader or ThreadPoolExecutor(1)
        self._ahead = ((step + 1, rank, world), self._reader.submit(self._made, step + 1, rank, world))
        return ready

    def _made(self, step: int, rank: int, world: int) -> Batch:
        size = self.config.train.batch_size
        start = (step * world + rank) * size
        batch = {}
        for side, part in self.sets.items():
            name = "pair" if self.paired else side
            indices = [_index(self.config.train.seed, name, len(part), start + i) for i in range(size)]
            rng = torch.Generator().manual_seed(_seed(self.config.train.seed, name, start))
            batch[side] = self._augmented(part.take(indices), rng)
            batch |= {name: values[indices] for name, values in self.marks.items()}
        return merged(batch)

    def fixed(self, count: int) -> Batch:
        """The first `count` pictures of each side, cropped in the middle: for sample grids."""
        height, width = self.size
        shown = {}
        for side, part in self.sets.items():
            top, left = (part.height - height) // 2, (part.width - width) // 2
            pictures = part.take(list(range(min(count, *(len(s) for s in self.sets.values())))))
            cut = pictures[:, :, top : top + height, left : left + width]
            shown[side] = _ranged(cut)
            shown |= {name: values[: len(pictures)] for name, values in self.marks.items()}
        return merged(shown)

    def _augmented(self, pictures: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        moved, amount = self._moved(pictures, rng), self.config.data.colour
        return recolour(moved, amount, rng) if amount and pictures.dtype != torch.int32 else moved

    def _moved(self, pictures: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        data = self.config.data
        if data.rotate or data.stretch:
            floats = distort(to_range(pictures), data.rotate, data.stretch, rng)
            return crop_flip(floats, self.size, data.flip, rng)
        return _ranged(crop_flip(pictures, self.size, data.flip, rng))


def merged(batch: Batch) -> Batch:
    """Instance numbers become a second channel of the label maps A."""
    if "I" not in batch:
        return batch
    return {**{name: part for name, part in batch.items() if name != "I"}, "A": torch.cat([batch["A"], batch["I"]], 1)}


def _ranged(pixels: torch.Tensor) -> torch.Tensor:
    # label maps stay whole numbers, in floats as everything that networks take
    return pixels.float() if pixels.dtype == torch.int32 else to_range(pixels)


def _index(seed: int, name: str, count: int, position: int) -> int:
    epoch, place = divmod(position, count)
    return _order(seed, name, count, epoch)[place]


@lru_cache(maxsize=8)
def _order(seed: int, name: str, count: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, name, -1 - epoch))).tolist()


def _seed(*parts: int | str) -> int:
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
