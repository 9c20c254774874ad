"""Pictures of the embedded world as its networks take them."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pictures: list) -> Tensor:
    """RGB pictures of equal size -> (B, 3, H, W), -1 to 1."""
    array = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
    return torch.from_numpy(array).permute(0, 3, 1, 2) / 127.5 - 1
