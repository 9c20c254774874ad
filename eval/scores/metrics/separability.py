"""How well a linear classifier tells classes apart on discriminator features (Radford et al. 2016, section 5.1)."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

POOLED_SIDE = 4


@torch.no_grad()
def pooled_layers(network: nn.Module, layers: Sequence[nn.Module], pictures: Tensor, batch: int = 64) -> np.ndarray:
    """Outputs of `layers`, each max-pooled to 4x4 and flattened, side by side: (N, features).

    Args:
        network: called on pictures (N, 3, H, W) in the range it was trained on.
        layers: modules of it whose outputs are (B, C, h, w).

    Raises:
        ValueError: a layer gave no four-dimensional output.
    """
    network.eval()
    rows = []
    for part in pictures.split(batch):
        found: list[Tensor] = []
        handles = [layer.register_forward_hook(partial(_keep, found)) for layer in layers]
        try:
            network(part)
        finally:
            for handle in handles:
                handle.remove()
        if len(found) != len(layers) or any(f.dim() != 4 for f in found):
            raise ValueError("layers must run once each and give (B, C, h, w)")
        rows.append(torch.cat([functional.adaptive_max_pool2d(f, POOLED_SIDE).flatten(1) for f in found], 1))
    return torch.cat(rows).double().cpu().numpy()


def _keep(found: list[Tensor], _module: nn.Module, _inputs: object, output: Tensor) -> None:
    found.append(output)


def raw_pixels(pictures: Tensor) -> np.ndarray:
    """The control without features: pixels (N, 3 H W)."""
    return pictures.flatten(1).double().cpu().numpy()


def pca_features(train: np.ndarray, test: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """The linear control: the first principal components of the training rows."""
    from sklearn.decomposition import PCA

    model = PCA(min(components, *train.shape), random_state=0).fit(train)
    return model.transform(train), model.transform(test)


def linear_accuracy(
    train: np.ndarray, labels: Sequence[int], test: np.ndarray, test_labels: Sequence[int], c: float = 1e-3
) -> float:
    """Test accuracy, 0 to 1, of an L2-regularised linear SVM on standardised features.

    Args:
        train, test: (N, features), (M, features). c: inverse regularisation strength of scikit-learn.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    model = make_pipeline(StandardScaler(), LinearSVC(C=c, dual="auto", random_state=0, max_iter=5000))
    model.fit(train, np.asarray(labels))
    return float(model.score(test, np.asarray(test_labels)))


Extractor = Callable[[Tensor], np.ndarray]


def compare(
    extractors: dict[str, Extractor], train: Tensor, labels: Sequence[int], test: Tensor, test_labels: Sequence[int]
) -> dict[str, float]:
    """Accuracy by name of feature extractor, with raw pixels and their PCA as controls."""
    named: dict[str, Extractor] = {"raw pixels": raw_pixels, **extractors}
    scores = {
        name: linear_accuracy(extract(train), labels, extract(test), test_labels) for name, extract in named.items()
    }
    reduced = pca_features(raw_pixels(train), raw_pixels(test), 100)
    return scores | {"PCA of pixels": linear_accuracy(reduced[0], labels, reduced[1], test_labels)}
