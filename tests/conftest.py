"""Settings and fixtures shared by all tests: offline, one thread, a cache folder of their own, toy models."""

import gc
import os

# read once, when the hub libraries are imported
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from toy import toy_pipeline, toy_unet, toy_xl_pipeline, true_pipeline

gc.disable()  # until all is collected: a million objects of libraries that stay to the end
torch.set_num_threads(1)
hypothesis.settings.register_profile("shared", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("shared")


def pytest_collection_finish() -> None:
    """Leave what the libraries made out of every later collection of garbage: a fifteenth of the whole time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Commands that run in this process set the number of threads; with two, tiny networks mostly wait."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def freectl_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Send the package's cache to a temporary folder for the whole session."""
    folder = tmp_path_factory.mktemp("freectl_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREECTL_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def toy_pipe(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    """Tiny Stable Diffusion 1 pipeline (eps prediction). Shared: deep-copy it before changing it."""
    return toy_pipeline(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_pipe_v(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    """Tiny Stable Diffusion 2 pipeline (v prediction). Shared: deep-copy it before changing it."""
    return toy_pipeline(tmp_path_factory.mktemp("toy_v"), prediction_type="v_prediction", family="sd2")


@pytest.fixture(scope="session")
def toy_xl_pipe(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionXLPipeline:
    """Tiny SDXL pipeline. Shared: deep-copy it before changing it."""
    return toy_xl_pipeline(tmp_path_factory.mktemp("toy_xl"))


@pytest.fixture(scope="session")
def true_pipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StableDiffusionPipeline]:
    """A pipeline of each family's published topology at toy width. Shared: deep-copy a network before changing it."""
    return {name: true_pipeline(name, tmp_path_factory.mktemp(name)) for name in ("sd1", "sd2", "sdxl")}


@pytest.fixture
def unet() -> UNet2DConditionModel:
    """Tiny Stable Diffusion 1 UNet of the test's own."""
    return toy_unet()


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Pipelines of each family of packed transformers, by name, as `flux_kinds.Toy`. Shared, as the others."""
    from flux_kinds import made

    return made(tmp_path_factory.mktemp("transformers"))
