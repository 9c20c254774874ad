"""The trainer: seeded, resumable to the same bytes, safe against a kill in the middle of a checkpoint."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from freectl.mini.scene import Scene
from freectl.mini.training import run
from freectl.mini.training.data import batch_rng, scene_batch, training_caption
from freectl.mini.training.judge import _seen
from freectl.mini.training.trainer import TrainConfig, Trainer

CONFIG = TrainConfig(pictures=24, batch=4, warmup=2, log_steps=1, sheet_steps=100, checkpoint_seconds=0.0, bf16=False)


class LinePart:
    """Fits a line; stops itself at a given step, as a kill would."""

    name = "line"

    def __init__(self, die_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.line = nn.Linear(2, 1)
        self.modules = {"resblocks": self.line}  # whose matrices Muon takes, where it is asked for
        self.die_at = die_at

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        if step == self.die_at:
            raise KeyboardInterrupt
        x = torch.randn(batch, 2, generator=torch.Generator().manual_seed(1000 * seed + step))
        return {"loss": (self.line(x) - x.sum(-1, keepdim=True)).square().mean()}

    def sheet(self) -> Image.Image:
        return Image.new("RGB", (2, 2))

    def export(self, folder: Path) -> None:
        raise AssertionError("not used here")


def weights(part: LinePart) -> list[Tensor]:
    return [p.detach().clone() for p in part.line.parameters()]


@pytest.mark.parametrize("muon", [False, True])
def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path: Path, muon: bool) -> None:
    straight, config = LinePart(), replace(CONFIG, muon=muon)
    Trainer(straight, config, tmp_path / "straight").run()
    with pytest.raises(KeyboardInterrupt):
        Trainer(LinePart(die_at=3), config, tmp_path / "killed").run()
    (tmp_path / "killed" / "state.tmp").write_bytes(b"half a checkpoint")
    resumed = LinePart()
    trainer = Trainer(resumed, config, tmp_path / "killed")
    assert trainer.step == 3
    trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(weights(straight), weights(resumed), strict=True))


def test_steps_run_compiled_and_sheets_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, graphs, plain = LinePart(), [], []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def sheet() -> Image.Image:
        before = len(graphs)
        part.line(torch.zeros(7, 3, 2))
        plain.append(len(graphs) == before)
        return Image.new("RGB", (2, 2))

    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend=backend))
    monkeypatch.setattr(run, "make_part", lambda name, folder: part)
    monkeypatch.setattr(part, "sheet", sheet)
    monkeypatch.setattr(part, "export", lambda folder: sheet())
    run.train_part("line", CONFIG, tmp_path, tmp_path / "model", compiled=True)
    assert graphs
    assert plain == [True, True]


def test_muon_steps_are_orthogonal_and_as_long_as_those_of_adamw(tmp_path: Path) -> None:
    """The first step of an m x n matrix: about orthonormal, times 0.2 sqrt(max(m, n)), within Muon's tolerance."""
    part = LinePart()
    part.line = nn.Linear(2, 4, bias=False)
    part.modules = {"resblocks": part.line}
    before = part.line.weight.detach().clone()
    config = replace(CONFIG, pictures=4, learning_rate=0.1, warmup=1, weight_decay=0.0, muon=True)
    trainer = Trainer(part, config, tmp_path)
    assert [type(one).__name__ for one in trainer.optimizers] == ["Muon"]
    trainer._train_step()
    lengths = torch.linalg.svdvals(part.line.weight.detach() - before) / (0.1 * 0.2 * 4**0.5)
    assert lengths.min() > 0.6
    assert lengths.max() < 1.3


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first, second = LinePart(), LinePart()
    Trainer(first, CONFIG, tmp_path / "a").run()
    Trainer(second, replace(CONFIG, seed=1), tmp_path / "b").run()
    assert not torch.equal(weights(first)[0], weights(second)[0])


def test_learning_rate_warms_up_and_decays() -> None:
    config = TrainConfig(pictures=1000, batch=1, warmup=10)
    rates = [config.rate(step) for step in range(1000)]
    assert rates[0] < rates[5] < rates[9] <= config.learning_rate == max(rates)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] == pytest.approx(0.01 * config.learning_rate, rel=0.05)


def test_log_has_a_line_a_step(tmp_path: Path) -> None:
    Trainer(LinePart(), CONFIG, tmp_path).run()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == CONFIG.steps
    assert list((tmp_path / "sheets").glob("*.png"))


def test_batches_depend_on_seed_and_step_alone() -> None:
    first = scene_batch(batch_rng(5, 7), 3)
    again = scene_batch(batch_rng(5, 7), 3)
    other = scene_batch(batch_rng(5, 8), 3)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert first[0] != other[0]
    assert first[1].shape == (3, 3, 64, 64)
    assert first[1].min() >= -1
    assert first[1].max() <= 1


def test_training_captions_drop_words_and_whole_captions() -> None:
    rng = batch_rng(0, 0)
    scene = scene_batch(rng, 1)[0][0]
    captions = {training_caption(scene, rng) for _ in range(300)}
    assert "" in captions
    assert scene.caption in captions
    assert any(scene.object not in text for text in captions if text)


def test_the_judge_learns_one_name_for_a_shared_outline() -> None:
    flat = Scene("panda", "silhouette", "red", "twemoji")
    assert _seen(flat, "object") == "bear"
    assert [_seen(flat, head) for head in ("style", "background")] == ["silhouette", "red"]
    assert _seen(replace(flat, artwork="noto"), "object") == "panda"
    assert _seen(flat.with_words(style="twemoji"), "object") == "panda"
