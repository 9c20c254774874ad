"""The trainer: seeded, resumable to the same bytes, safe against a kill in the middle of a checkpoint."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from freectl.errors import InputError
from freectl.mini import MODEL_DIR
from freectl.mini.domain import PICTURE_SIZE
from freectl.mini.scene import Scene
from freectl.mini.training import run
from freectl.mini.training.data import batch_rng, scene_batch, training_caption
from freectl.mini.training.judge import _seen
from freectl.mini.training.optimizers import Muon, hidden_matrices
from freectl.mini.training.recipe import SHIPPED, SMALL
from freectl.mini.training.state import STATE
from freectl.mini.training.stopping import StoppedError
from freectl.mini.training.trainer import TrainConfig, Trainer
from freectl.mini.training.unet import UNetPart
from freectl.mini.training.vae import VAEPart

CONFIG = TrainConfig(pictures=24, batch=4, warmup=2, log_steps=1, sheet_steps=100, checkpoint_seconds=0.0, bf16=False)


class LinePart:
    """Fits a line; stops itself at a given step, as a kill would."""

    name = "line"

    def __init__(self, die_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.line = nn.Linear(2, 1)
        self.modules = {"line": self.line}
        self.facts: dict[str, Any] = {}
        self.die_at = die_at

    def matrices(self) -> list[str]:
        return hidden_matrices(self.modules)

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


class ConvPart(LinePart):
    """Two convolutions whose weights lie channels last, as the shipped parts' do."""

    def __init__(self, die_at: int | None = None) -> None:
        super().__init__(die_at)
        self.line = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)).to(memory_format=torch.channels_last)
        self.modules = {"line": self.line}

    def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
        if step == self.die_at:
            raise KeyboardInterrupt
        x = torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(1000 * seed + step))
        return {"loss": (self.line(x) - 1).square().mean()}


@pytest.mark.parametrize("muon", [False, True])
def test_moments_of_channels_last_networks_survive_a_resume(tmp_path: Path, muon: bool) -> None:
    """The moments come back as they were, value by value, and the next step is the same to the bit."""
    config = replace(CONFIG, muon=muon)
    straight = Trainer(ConvPart(), config, tmp_path / "straight")
    straight.run()
    with pytest.raises(KeyboardInterrupt):
        Trainer(ConvPart(die_at=3), config, tmp_path / "killed").run()
    resumed = Trainer(ConvPart(), config, tmp_path / "killed")
    for optimizer in resumed.optimizers:
        for parameter, state in optimizer.state.items():
            assert all(value.stride() == parameter.stride() for value in state.values() if value.ndim)
    resumed.run()
    for ours, theirs in zip(resumed.optimizers, straight.optimizers, strict=True):
        states = zip(ours.state.values(), theirs.state.values(), strict=True)
        assert all(torch.equal(a[kind], b[kind]) for a, b in states for kind in b)
    assert all(torch.equal(value, straight.parameters[name]) for name, value in resumed.parameters.items())


def small(part: str) -> Any:
    """A shipped part, its networks shrunk where a recipe can."""
    recipe = replace(SMALL, widths=(8, 8, 8), heads=1)
    made: dict[str, Callable[[], Any]] = {
        "vae": lambda: VAEPart(replace(SMALL, vae_widths=(4, 4, 4))),
        "fine vae": lambda: VAEPart(replace(SHIPPED, vae_widths=(4, 4, 4, 4))),
        "unet": lambda: UNetPart(MODEL_DIR, recipe),
    }
    return made[part]() if part in made else run.make_part(part, MODEL_DIR, 64)


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("part", ["vae", "fine vae", "unet", "clip", "judge"])
def test_every_part_resumes_to_the_same_weights(tmp_path: Path, part: str, muon: bool) -> None:
    config = replace(CONFIG, batch=2, pictures=8, muon=muon, warmup=1)
    straight = Trainer(small(part), config, tmp_path)
    straight._train_step()
    straight.save()
    straight._train_step()
    resumed = Trainer(small(part), config, tmp_path)
    assert resumed.step == 1
    if part == "judge":  # running statistics are of the export alone, and no part of the state
        resumed.part.judge.train()
    resumed._train_step()
    assert all(torch.equal(value, straight.parameters[name]) for name, value in resumed.parameters.items())


@pytest.mark.parametrize(
    ("change", "option"),
    [({"batch": 8}, "--batch"), ({"seed": 5}, "--seed"), ({"learning_rate": 1.0}, "--learning-rate"),
     ({"ema_decay": 0.5}, "--out")],
)  # fmt: skip
def test_other_settings_do_not_resume(tmp_path: Path, change: dict[str, Any], option: str) -> None:
    Trainer(LinePart(), CONFIG, tmp_path).run()
    with pytest.raises(InputError, match=f"^{option}: .*{next(iter(change))}.*began") as caught:
        Trainer(LinePart(), replace(CONFIG, **change), tmp_path)
    assert "\n" not in str(caught.value)
    Trainer(LinePart(), replace(CONFIG, pictures=48, bf16=True, log_steps=7), tmp_path)


def test_other_recipes_and_networks_do_not_resume(tmp_path: Path) -> None:
    Trainer(LinePart(), CONFIG, tmp_path).run()
    other = LinePart()
    other.facts = {"widths": [1, 2]}
    with pytest.raises(InputError, match="widths"):
        Trainer(other, CONFIG, tmp_path)
    wider = LinePart()
    wider.line = nn.Linear(3, 1)
    wider.modules = {"line": wider.line}
    with pytest.raises(InputError, match="another network"):
        Trainer(wider, CONFIG, tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_a_checkpoint(tmp_path: Path, number: int, code: int) -> None:
    class Signalled(LinePart):
        def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
            if step == 3:
                os.kill(os.getpid(), number)
            return super().losses(seed, step, batch)

    config, handler = replace(CONFIG, checkpoint_seconds=1e6), signal.getsignal(number)
    with pytest.raises(StoppedError, match="after step 4") as caught:
        Trainer(Signalled(), config, tmp_path / "stopped").run()
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is handler
    straight, resumed = LinePart(), LinePart()
    Trainer(straight, config, tmp_path / "straight").run()
    trainer = Trainer(resumed, config, tmp_path / "stopped")
    assert trainer.step == 4
    trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(weights(straight), weights(resumed), strict=True))


def test_one_training_a_folder(tmp_path: Path) -> None:
    class Greedy(LinePart):
        def losses(self, seed: int, step: int, batch: int) -> dict[str, Tensor]:
            with pytest.raises(InputError, match="another training"):
                Trainer(LinePart(), CONFIG, tmp_path).run()
            return super().losses(seed, step, batch)

    Trainer(Greedy(), CONFIG, tmp_path).run()
    assert Trainer(LinePart(), CONFIG, tmp_path).step == CONFIG.steps


def test_a_step_is_logged_once(tmp_path: Path) -> None:
    """Steps after the last checkpoint are trained again, and half a line is what a kill leaves."""
    with pytest.raises(KeyboardInterrupt):
        Trainer(LinePart(die_at=5), replace(CONFIG, checkpoint_seconds=1e6), tmp_path).run()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "lo')
    assert not (tmp_path / STATE).exists()
    Trainer(LinePart(), CONFIG, tmp_path).run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, CONFIG.steps + 1))
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)


def test_muon_takes_convolutions_as_matrices(tmp_path: Path) -> None:
    """Against torch's own on the same numbers as a matrix; its iteration runs in bfloat16."""
    torch.manual_seed(0)
    convolution = nn.Parameter(torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    matrix = nn.Parameter(convolution.detach().reshape(6, 36).clone())
    before = matrix.detach().clone()
    ours = Muon([convolution], lr=0.1, weight_decay=0.01)
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn(6, 36)
        matrix.grad, convolution.grad = gradient.clone(), gradient.view(6, 4, 3, 3)
        ours.step()
        theirs.step()
    moved = (matrix - before).norm()
    assert (convolution.detach().reshape(6, 36) - matrix).norm() < 0.03 * moved


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
    monkeypatch.setattr(run, "make_part", lambda name, folder, size, cache: part)
    monkeypatch.setattr(part, "sheet", sheet)
    monkeypatch.setattr(part, "export", lambda folder: sheet())
    run.train_part("line", CONFIG, tmp_path, tmp_path / "model", compiled=True)
    assert graphs
    assert plain == [True, True]


def test_muon_steps_are_orthogonal_and_as_long_as_those_of_adamw(tmp_path: Path) -> None:
    """The first step of an m x n matrix: about orthonormal, times 0.2 sqrt(max(m, n)), within Muon's tolerance."""
    part = LinePart()
    part.line = nn.Linear(2, 4, bias=False)
    part.modules = {"line": part.line}
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
    assert first[1].shape == (3, 3, PICTURE_SIZE, PICTURE_SIZE)
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
