"""Pictures to tensors and back."""

from typing import Any

import numpy as np
import torch
from PIL import Image


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB picture to (1, 3, H, W), grey levels 0 to 255."""
    return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)[None]


def to_picture(values: Any) -> Image.Image:
    """(H, W) or (H, W, 3) array, 0 to 1, to an RGB picture."""
    return Image.fromarray(np.rint(np.clip(np.asarray(values), 0, 1) * 255).astype(np.uint8)).convert("RGB")
