"""Published benchmarks end to end on tiny copies: every method that can run, from the data's layout to the report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from diffusers import ControlNetModel, T2IAdapter
from PIL import Image

from eval.bench.manifests import load_bench
from eval.report.command import published_for
from eval.report.page import page
from eval.results.reading import read
from eval.results.store import Store
from eval.results.tables import summary_markdown
from eval.run.checked import check
from eval.run.execute import execute
from eval.run.measure import write_sets
from eval.run.plan import Plan
from eval.run.variants import variants
from eval.scores.metrics import mse
from eval.scores.networks import PictureDistance
from eval.scores.pictures import CtrlXScorer, PictureScorer, PieScorer
from freectl import methods
from freectl.errors import FreectlError, InputError
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
    """One picture with two prompts in ImageNet-R-TI2I's layout, and its edges and depth."""
    data = tmp_path / "data"
    for root, grey in ((data, 90), (tmp_path / "shown" / "Canny", 240), (tmp_path / "shown" / "depth", 30)):
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


def ran(bench: Any, model: Path, out: Path, names: str, scorer: Any, count: int = 1) -> tuple[list[Any], str]:
    """The result lines of the first cases, and the report's page."""
    plan = Plan(bench, tuple(variants(names, [], [], [])), model=str(model), steps=2, device="cpu")
    loaded = load_bench(*bench)
    plan.check(loaded)
    with Store(out).locked() as store:
        store.begin(plan.about(loaded), "python -m eval.run")
        cases = loaded.cases[:count]
        assert execute(plan, loaded, cases, store, scorer=scorer) == 0, (out / "failures.jsonl").read_text()
        write_sets(store, loaded.layout)
    results = read([out])
    assert "| freecontrol" in summary_markdown(results)
    text = page(results, baseline=None, rows=1, published=published_for(loaded.layout))
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()], text


def every(*more: str) -> str:
    """All methods that the model runs, the costly ones at small settings."""
    few = {"freecontrol": FEW, "pix2pix-zero": "pix2pix-zero[sentences=2,rounds=1]"}
    return ",".join([*(few.get(name, name) for name in methods.REGISTRY if families.MINI.runs(name)), *more])


def names_of(lines: list[Any]) -> set[str]:
    return {line["method"] for line in lines}


def test_pie_bench_runs_with_every_method(pie: Path, model: Path, tmp_path: Path) -> None:
    lines, text = ran(("pie", pie, None), model, tmp_path / "out", every(), PieScorer(Clip()))
    assert names_of(lines) == {name for name in methods.REGISTRY if families.MINI.runs(name)}
    assert all(line["scores"]["clip_whole"] is not None for line in lines)
    assert text.index("this run") < text.index("Direct + P2P")


def test_conditions_of_imagenet_r_are_followed_by_every_method(
    ti2i: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FreeControl's Table 1: all conditions at once, a trained network on its own alone; papers' rows beside ours."""
    names = f"{FEW},sdedit[strength=0.75|0.85],ctrlx,pnp,p2p,controlnet[kinds=canny],t2i-adapter[kinds=canny+depth]"
    bench = ("imagenet-r-ti2i", ti2i, ti2i.parent / "shown")
    unread = FreectlError("no weights")
    for name in ("_features", "load_clip"):
        monkeypatch.setattr(f"eval.scores.set_scores.{name}", Mock(side_effect=unread))
    lines, text = ran(bench, model, tmp_path / "out", names, PictureScorer(Clip()), count=2)
    done = {(line["method"], line["kind"]) for line in lines}
    both = {(name, kind) for name in ("freecontrol", "sdedit", "ctrlx", "pnp", "p2p", "t2i-adapter")
            for kind in ("canny", "depth")}  # fmt: skip
    assert done == both | {("controlnet", "canny")}
    own = {line["method"]: line for line in lines}
    assert own["freecontrol"]["settings"]["start"] == "noise"
    assert own["controlnet"]["cost"]["row_forwards"] == 4
    canny, depth, hed = (
        text.split(f"<h3>{name} condition</h3>")[1].split("<h3>")[0] for name in ("Canny", "Depth", "HED")
    )
    assert canny.index("this run") < canny.index("Uni-ControlNet")
    assert canny.count("this run") == 8
    assert depth.count("this run") == 7
    assert "this run" not in hed
    with pytest.raises(InputError, match="--set kinds: found unknown name 'cany'; allowed: canny, depth"):
        ran(bench, model, tmp_path / "new", "sdedit[kinds=cany]", None)


def test_ctrlx_tables_run_with_every_method(ctrlx: Path, model: Path, tmp_path: Path) -> None:
    """Tables 5 and 2, and the costs of Table 1: conditions are followed, looks given to methods that take them."""
    near = PictureDistance("toy", lambda a, b, _keep: mse(a, b))
    takes = {"ctrlx", "freecontrol"}
    for name, asked in (("ctrl-x", every(*methods.CONTROL, "ctrlx:published")),
                        ("ctrl-x-pairs", f"ctrlx,ctrlx:published,{FEW}")):  # fmt: skip
        bench = (name, ctrlx, None)
        scorer = CtrlXScorer(Clip(), near, near, likeness=near)
        lines, text = ran(bench, model, tmp_path / name, asked, scorer)
        able = {one for one in methods.REGISTRY if families.MINI.runs(one)} | set(methods.CONTROL)
        able = able if name == "ctrl-x" else takes
        assert names_of(lines) == able
        assert {line["kind"] for line in lines} == {"supported"}
        table = text.split("conditions that ControlNet supports</h3>")[1].split("<h3>")[0]
        assert table.count("this run") == len(able) + 1
        costs = text.split("<h3>on an H100")[1]
        assert costs.count("this run") == len(able) + 1
        assert "239.36" in costs
        assert all(("dino_i" in line["scores"]) == (name == "ctrl-x-pairs") for line in lines)
    pairs = load_bench("ctrl-x-pairs", ctrlx)
    looks = {one: check(variants(one, [], [], [])[0], pairs.is_control, pairs.is_paired).appearance
             for one in ("ctrlx", "freecontrol", "pnp")}  # fmt: skip
    assert looks == {"ctrlx": "example", "freecontrol": "example", "pnp": "none"}
