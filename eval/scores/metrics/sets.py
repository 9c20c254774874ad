"""Distances between two sets of pictures: FID, KID and CMMD."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eval.scores.measures import SMALL_SET
from eval.scores.metrics.base import MetricResult, check_pictures, missing_weights
from freectl.errors import FreectlError

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
BATCH = 32
Features = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W), 0 to 1 -> features (B, D)."""


def inception_features() -> tuple[Features, str]:
    """Inception-v3 pool3 features (2048) of torch-fidelity, as all published FID and KID use.

    Raises:
        FreectlError: torch-fidelity or its weights are missing.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except ImportError:
        raise FreectlError("FID and KID need torch-fidelity: pip install 'freectl[eval]'") from None
    except (OSError, RuntimeError) as error:
        fetch = (
            'python -c "from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as F; '
            "F('inception-v3-compat', ['2048'])\""
        )
        raise FreectlError(missing_weights("inception-v3-compat", error, fetch)) from None
    return (lambda p: model((p * 255).round().to(torch.uint8))[0]), "torch-fidelity inception-v3-compat 2048"


@torch.no_grad()
def features_of(pictures: Tensor, network: Features | nn.Module) -> Tensor:
    """Features (N, D) in float64, computed in batches.

    Raises:
        FreectlError: some are not finite.
    """
    pictures = check_pictures(pictures)
    found = torch.cat([network(part).flatten(1).double() for part in pictures.split(BATCH)])
    if not bool(found.isfinite().all()):
        raise FreectlError("features that are not finite: the network's weights are damaged, or need more precision")
    return found


def fid(real: Tensor, made: Tensor, network_name: str) -> MetricResult:
    """Frechet distance of two feature sets (N, D), (M, D) (Heusel et al. 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), covariances unbiased. Biased upwards for small sets: see `set_summary`.
    """
    _check_sets(real, made)
    means = (real.mean(0) - made.mean(0)).square().sum()
    first, second = (torch.cov(x.double().T).reshape(x.shape[1], x.shape[1]) for x in (real, made))
    # tr (C1 C2)^(1/2) = sum of the roots of the eigenvalues of C1 C2, which are real and not negative
    roots = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    return MetricResult("FID", (means + first.trace() + second.trace() - 2 * roots).reshape(1), network_name)


def kid(
    real: Tensor, made: Tensor, network_name: str, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> MetricResult:
    """Kernel distance of two feature sets (Binkowski et al. 2018): unbiased MMD^2 under (x.y / D + 1)^3.

    Mean over `subsets` random subsets of at most `subset_size` pictures of each set; of all pictures at once where the
    sets are no larger than a subset. May be slightly negative.
    """
    _check_sets(real, made)
    size = min(subset_size, len(real), len(made))
    if size == len(real) == len(made):
        values = [_mmd(real, made)]
    else:
        generator = torch.Generator().manual_seed(seed)
        values = [
            _mmd(*(x[torch.randperm(len(x), generator=generator)[:size].to(x.device)] for x in (real, made)))
            for _ in range(subsets)
        ]
    return MetricResult("KID", torch.stack(values).mean().reshape(1), network_name, f"subsets of {size}")


def cmmd(real: Tensor, made: Tensor, network_name: str) -> MetricResult:
    """CLIP maximum mean discrepancy (Jayasumana et al. 2024): Gaussian kernel, sigma 10, x1000.

    Of CLIP image embeddings (N, D), (M, D), which are made unit vectors here; by the biased estimator with the
    diagonal, as published. ViT-L/14 at 336 px in the paper, see `eval.scores.metrics.clip.CMMD_DEFAULT`.
    """
    _check_sets(real, made)
    one, other = (torch.nn.functional.normalize(embeddings, dim=-1) for embeddings in (real, made))

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, y).square() / (2 * CMMD_SIGMA**2)).mean()

    value = CMMD_SCALE * (kernel(one, one) + kernel(other, other) - 2 * kernel(one, other))
    return MetricResult("CMMD", value.reshape(1), network_name)


def coverage(real: Tensor, made: Tensor, network_name: str, neighbours: int = 5) -> MetricResult:
    """Share of real pictures near which a made one lies (Naeem et al. 2020): low where modes are missing.

    Near: no farther than the real picture's own `neighbours`-th nearest real one; of features (N, D), (M, D).
    """
    _check_sets(real, made)
    reach = torch.cdist(real, real).sort(dim=1).values[:, min(neighbours, len(real) - 1)]
    near = torch.cdist(real, made).min(dim=1).values <= reach
    return MetricResult("coverage", near.double().mean().reshape(1), network_name, f"{neighbours} nearest neighbours")


def set_summary(real: Tensor, made: Tensor, network_name: str) -> list[MetricResult]:
    """KID and FID of two feature sets, the one to read first in front.

    Below 1,000 pictures that is KID: FID's bias grows as 1/N and differs between models, KID has none.
    """
    small = min(len(real), len(made)) < SMALL_SET
    note = f"{min(len(real), len(made))} pictures: FID is biased below {SMALL_SET}, read KID" if small else ""
    results = [kid(real, made, network_name), fid(real, made, network_name)]
    noted = [MetricResult(r.name, r.values, r.network, "; ".join(filter(None, [r.note, note]))) for r in results]
    return noted if small else noted[::-1]


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def _check_sets(real: Tensor, made: Tensor) -> None:
    if real.dim() != 2 or made.dim() != 2 or real.shape[1] != made.shape[1] or min(len(real), len(made)) < 2:
        found = f"{tuple(real.shape)} and {tuple(made.shape)}"
        raise ValueError(f"features {found}; expected (N, D) and (M, D) with 2 or more rows each")
