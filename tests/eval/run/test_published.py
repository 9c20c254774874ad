"""Published benchmarks end to end on tiny copies: every method that can run, from the data's layout to the report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import ControlNetModel, T2IAdapter
from PIL import Image

from eval.bench.manifests import load_bench
from eval.report.command import published_for
from eval.results.reading import read
from eval.results.store import Store
from eval.results.tables import summary_markdown
from eval.run.execute import execute
from eval.run.measure import write_sets
from eval.run.plan import Plan
from eval.run.variants import variants
from eval.scores.pictures import PictureScorer, PieScorer
from freectl import methods
from freectl.models import families
from freectl.tasks import edit as editing

FEW = "freecontrol[seeds=2,seed_steps=2,components=2]"


class Clip:
    name = "made-up"

    def text_cosine(self, picture: Image.Image, text: str) -> float:
        return picture.getpixel((0, 0))[0] / 255  # type: ignore[index]

    def accuracy(self, picture: Image.Image, text: str, source_text: str) -> float:
        return 1.0

    def directional(self, picture: Image.Image, source: Image.Image, text: str, source_text: str) -> float:
        return 0.5


@pytest.fixture(scope="module")
def model(toy_pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model's folder with control networks beside it."""
    folder = tmp_path_factory.mktemp("toy")
    toy_pipe.save_pretrained(folder)
    torch.manual_seed(0)
    network = ControlNetModel.from_unet(toy_pipe.unet, conditioning_embedding_out_channels=(4, 8, 8))
    network.save_pretrained(folder / "controlnet")
    T2IAdapter(3, [8, 16, 16], 1, 4, "full_adapter").save_pretrained(folder / "t2i-adapter")
    return folder


@pytest.fixture
def ti2i(tmp_path: Path) -> Path:
    """One picture with two prompts in ImageNet-R-TI2I's layout, and its edges."""
    data = tmp_path / "data"
    for root, grey in ((data, 90), (tmp_path / "canny", 240)):
        (root / "cat").mkdir(parents=True)
        Image.new("RGB", (64, 64), (grey, 100, 200)).save(root / "cat" / "sketch_0.png")
    entry = {"init_img": "/x/cat/sketch_0.png", "source_prompt": None, "target_prompts": ["a cat", "a red cat"]}
    (data / "imnetr-ti2i.yaml").write_text(yaml.safe_dump([entry]))
    return data


@pytest.fixture(autouse=True)
def own_pipeline() -> Iterator[None]:
    editing._pipeline.cache_clear()
    yield
    editing._pipeline.cache_clear()


def ran(bench: Any, model: Path, out: Path, names: str, scorer: Any) -> list[dict[str, Any]]:
    plan = Plan(bench, tuple(variants(names, [], [], [])), model=str(model), steps=2, device="cpu")
    loaded = load_bench(*bench)
    plan.check(loaded)
    with Store(out).locked() as store:
        store.begin(plan.about(loaded), "python -m eval.run")
        assert execute(plan, loaded, loaded.cases[:1], store, scorer=scorer) == 0, (out / "failures.jsonl").read_text()
        write_sets(store, loaded.layout)
    assert "| freecontrol" in summary_markdown(read([out]))
    assert published_for(loaded.layout)["tables"]
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_pie_bench_runs_with_every_method(pie: Path, model: Path, tmp_path: Path) -> None:
    able = [name for name in methods.REGISTRY if families.MINI.runs(name)]
    few = {"freecontrol": FEW, "pix2pix-zero": "pix2pix-zero[sentences=2,rounds=1]"}
    names = ",".join(few.get(name, name) for name in able)
    lines = ran(("pie", pie, None), model, tmp_path / "out", names, PieScorer(Clip()))
    assert {line["method"] for line in lines} == set(able)
    assert all(line["scores"]["clip_whole"] is not None for line in lines)


def test_conditions_of_imagenet_r_are_followed_by_every_method(ti2i: Path, model: Path, tmp_path: Path) -> None:
    """FreeControl's Table 1: trained networks too; FreeControl and Ctrl-X see a condition, SDEdit and PnP a picture."""
    names = ",".join([*methods.CONTROL, "ctrlx", "sdedit[strength=0.75|0.85]", "pnp", "p2p", FEW])
    bench = ("imagenet-r-ti2i", ti2i, ti2i.parent / "canny")
    lines = ran(bench, model, tmp_path / "out", names, PictureScorer(Clip()))
    assert {line["method"] for line in lines} == {*methods.CONTROL, "ctrlx", "sdedit", "pnp", "p2p", "freecontrol"}
    own = {line["method"]: line for line in lines}
    assert own["freecontrol"]["settings"]["start"] == "noise"
    assert own["controlnet"]["cost"]["row_forwards"] == 4
