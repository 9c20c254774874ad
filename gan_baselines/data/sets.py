"""A side's pictures: sizes checked from the headers, kept in memory as uint8 where they fit."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_baselines.config import CHANNELS, Form
from gan_baselines.data.folders import Source
from gan_baselines.data.pictures import picture_size, read_labels, read_picture, to_tensor
from gan_baselines.errors import InputError


class PictureSet:
    """Random access to equally sized pictures, uint8 (C, H, W) or float32 from 0 to 255, or label maps, int32.

    Args:
        source: the files.
        form: what pictures are read as.
        load_size: side in px that every picture is resized to; None demands equal sizes.

    Raises:
        InputError: mixed sizes, a sheet of odd width, or a file without a picture's header.
    """

    def __init__(self, source: Source, load_size: int | None = None, form: Form = "rgb") -> None:
        self.source, self.load_size, self.form = source, load_size, form
        sizes = [_side_size(path, source.half) for path in source.files]
        if load_size is None:
            _check_equal(source, sizes)
        self.width, self.height = (load_size, load_size) if load_size else sizes[0]
        self._cache: Tensor | None = None

    def __len__(self) -> int:
        return len(self.source.files)

    def load(self, memory_mb: int) -> None:
        """Decode all pictures and keep them, where they need at most `memory_mb` megabytes.

        Raises:
            InputError: a damaged file.
        """
        bytes_each = 4 if self.form == "grey16" else CHANNELS[self.form]
        if bytes_each * self.width * self.height * len(self) <= memory_mb * 1_000_000:
            self._cache = torch.stack([self._read(path) for path in self.source.files])

    @property
    def in_memory(self) -> bool:
        """Whether taking pictures reads no file."""
        return self._cache is not None

    def take(self, indices: list[int]) -> Tensor:
        """Return (n, C, H, W)."""
        if self._cache is not None:
            return self._cache[indices]
        return torch.stack([self._read(self.source.files[index]) for index in indices])

    def verify(self) -> None:
        """Decode every file.

        Raises:
            InputError: the first damaged one.
        """
        for path in self.source.files:
            self._read(path)

    def fingerprint(self) -> str:
        """A digest of names, sizes and count: notices that the folder is another one."""
        digest = hashlib.sha256(f"{self.width}x{self.height}".encode())
        for path in self.source.files:
            digest.update(f"{path.name}/{path.stat().st_size}/".encode())
        return digest.hexdigest()[:16]

    def _read(self, path: Path) -> Tensor:
        if self.source.labels:
            return self._read_labels(path)
        image = read_picture(path, form=self.form)
        if self.source.half is not None:
            middle = image.width // 2
            left = self.source.half * middle
            image = image.crop((left, 0, left + middle, image.height))
        image = _fitted(image, self.load_size, Image.Resampling.BICUBIC)
        if image.size != (self.width, self.height):
            found = f"'{path}', which its decoder turns to {image.width}x{image.height} px"
            raise InputError("--data", found, f"{self.width}x{self.height} px, or --set data.load_size=N")
        return to_tensor(image)

    def _read_labels(self, path: Path) -> Tensor:
        image = _fitted(Image.fromarray(read_labels(path)), self.load_size, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(image, dtype=np.int32))[None]


def _fitted(image: Image.Image, side: int | None, how: Image.Resampling) -> Image.Image:
    return image.resize((side, side), how) if side and image.size != (side, side) else image


def check_side(width: int, height: int, multiple: int, option: str, what: str, hint: str = "") -> None:
    """Refuse sides that the generator cannot halve and double back.

    Raises:
        InputError: not a multiple.
    """
    if width % multiple or height % multiple:
        raise InputError(option, f"{what} of {width}x{height} px", f"sides that {multiple} divides{hint}")


def _side_size(path: Path, half: int | None) -> tuple[int, int]:
    width, height = picture_size(path)
    if half is None:
        return width, height
    if width % 2:
        raise InputError("--data", f"sheet '{path}' of odd width {width} px", "two halves of equal width (A|B)")
    return width // 2, height


def _check_equal(source: Source, sizes: list[tuple[int, int]]) -> None:
    for path, size in zip(source.files, sizes, strict=True):
        if size != sizes[0]:
            found = (
                f"mixed sizes: '{path}' is {size[0]}x{size[1]} px, '{source.files[0].name}' {sizes[0][0]}x{sizes[0][1]}"
            )
            raise InputError("--data", found, "equal sizes, or --set data.load_size=N to resize all")
