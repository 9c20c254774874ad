"""Training runs: exact resume after kill -9, data as a function of the step, divergence, bounded pages."""

import copy
import json
import os
import shutil
import socket
import time
from xml.etree import ElementTree

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from forks import Fork
from gan_toy import FAST, TINY, write

from gan_baselines.data.augment import crop_flip, distort
from gan_baselines.data.batches import Batches
from gan_baselines.errors import DivergedError, InputError
from gan_baselines.models import build
from gan_baselines.settings import resolve
from gan_baselines.training import device, run_page
from gan_baselines.training.ema import Ema
from gan_baselines.training.monitor import CURVE_POINTS, Curves, RunLog
from gan_baselines.training.run import Run, train
from gan_baselines.training.trainer import Trainer, rate_factor
from gan_baselines.weights import load_weights

LONG = ["train.steps=24", "train.checkpoint_every=5", "train.sample_every=7", "train.ema=0.9", "train.log_every=3",
        "model.pool=4"]  # fmt: skip


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_killed_and_resumed_ends_in_the_bytes_of_an_uninterrupted_run(data, tmp_path):
    sets = [*FAST, *TINY["modified-cyclegan"], *LONG, "model.generator.kind=unet", "model.generator.downs=4",
            "model.generator.dropout=true"]  # fmt: skip
    straight = train("modified-cyclegan", data, tmp_path / "straight", sets=sets)
    child = Fork(lambda: train("modified-cyclegan", data, tmp_path / "killed", sets=sets))
    first = tmp_path / "killed" / "checkpoints" / "step-000000005" / "step.json"
    deadline = time.monotonic() + 90
    while not first.exists() and child.wait(0.005) is None and time.monotonic() < deadline:
        pass
    child.kill()
    resumed = train("modified-cyclegan", data, tmp_path / "killed", resume=True)
    assert 0 < resumed["trained"] < 24
    assert straight["steps"] == resumed["steps"] == 24
    assert contents(tmp_path / "straight" / "weights") == contents(tmp_path / "killed" / "weights")
    ends = [contents(tmp_path / run / "checkpoints" / "step-000000024") for run in ("straight", "killed")]
    assert ends[0] == ends[1]
    logs = [(tmp_path / run / "losses.jsonl").read_text().splitlines() for run in ("straight", "killed")]
    assert [json.loads(line)["losses"] for line in logs[0]] == [json.loads(line)["losses"] for line in logs[1]]


def test_pix2pix_resumes_between_log_lines(data, tmp_path):
    sets = [
        *FAST,
        *TINY["pix2pix"],
        "model.generator.downs=6",
        "data.load_size=64",
        "train.log_every=4",
        "train.checkpoint_every=3",
    ]
    train("pix2pix", data, tmp_path / "a", sets=[*sets, "train.steps=6", "train.decay_epochs=0"])
    train("pix2pix", data, tmp_path / "b", sets=[*sets, "train.steps=3", "train.decay_epochs=0"])
    train("pix2pix", data, tmp_path / "b", sets=["train.steps=6"], resume=True)
    assert contents(tmp_path / "a" / "weights") == contents(tmp_path / "b" / "weights")


def test_resume_needs_the_first_discriminators_no_more(data, tmp_path):
    sets = [*FAST, *TINY["modified-cyclegan"], "train.steps=1"]
    train("cyclegan", data, tmp_path / "first", sets=sets)
    first = tmp_path / "first" / "weights"
    train("modified-cyclegan", data, tmp_path / "m", sets=[*sets, f"model.discriminators_from={first}"])
    first.rename(tmp_path / "gone")
    assert train("modified-cyclegan", data, tmp_path / "m", sets=["train.steps=2"], resume=True)["trained"] == 1


def test_divergence_keeps_the_last_good_checkpoint(data, tmp_path):
    sets = [*FAST, *TINY["pix2pix"], "train.steps=20", "train.checkpoint_every=2", "train.log_every=5"]
    config = resolve("pix2pix", None, sets)
    run = Run(config, data, tmp_path / "run", False)
    advance = run.trainer.advance

    def poisoned():
        if run.trainer.step == 4:
            with torch.no_grad():
                next(run.trainer.model.generators.parameters()).fill_(float("nan"))
        advance()

    ended = []
    run.trainer.advance, run.tracking, run.accelerator.end_training = poisoned, True, lambda: ended.append(True)
    with pytest.raises(DivergedError, match="last good checkpoint: .*step-000000004"):
        run.go()
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())][-1] == "step-000000004"
    assert ended  # what trackers hold back is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": ["train.lr=1"]}, r"--set: found 'train\.lr' beside --resume"),
        ({"model": "pix2pix"}, "'pix2pix' for a run of 'cyclegan'"),
        ({"resume": False}, "--out: found .* not an empty folder"),
    ],
)
def test_resume_refuses_what_would_change_the_run(data, tmp_path, change, message):
    train("cyclegan", data, tmp_path / "r", sets=[*FAST, *TINY["cyclegan"], "train.steps=1"])
    arguments = {"model": "cyclegan", "data": data, "out": tmp_path / "r", "resume": True, **change}
    with pytest.raises(InputError, match=message):
        train(arguments.pop("model"), arguments.pop("data"), arguments.pop("out"), **arguments)


def test_resume_refuses_other_pictures_and_a_finished_run_has_nothing_left(data, tmp_path):
    train("cyclegan", data, tmp_path / "r", sets=[*FAST, *TINY["cyclegan"], "train.steps=1"])
    for side in "AB":
        write(tmp_path / "other" / f"train{side}", count=4)
    with pytest.raises(InputError, match="other pictures"):
        train("cyclegan", tmp_path / "other", tmp_path / "r", resume=True)
    weights = tmp_path / "r" / "weights"
    written = {path.name: path.read_bytes() for path in weights.iterdir()}
    shutil.rmtree(weights)  # as if killed between the last checkpoint and its weights
    assert train("cyclegan", data, tmp_path / "r", resume=True)["trained"] == 0
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == written


def test_batches_visit_every_picture_once_an_epoch_and_split_over_processes(data):
    config = resolve("pix2pix", None, ["train.batch_size=2", "data.flip=false"])
    batches = Batches(data, config, "paired")
    one = torch.cat([batches.at(step)["A"] for step in range(4)])
    assert len({p.numpy().tobytes() for p in one}) == 8
    for step in range(4):
        both = batches.at(step)
        torch.testing.assert_close(both["A"], -both["B"])  # pairs stay pairs: B is the negative of A
    two = torch.cat([batches.at(step, rank, 2)["A"] for step in range(2) for rank in range(2)])
    assert torch.equal(one, two)
    other = Batches(data, resolve("pix2pix", None, ["train.seed=1", "data.flip=false"]), "paired")
    assert not torch.equal(one[:1], other.at(0)["A"])


def test_unpaired_sides_have_their_own_order_and_uncached_pictures_are_the_same(data):
    cached = Batches(data, resolve("cyclegan"), "unpaired")
    streamed = Batches(data, resolve("cyclegan", None, ["data.memory_mb=0"]), "unpaired")
    cached.load()
    streamed.load()
    assert [[part.in_memory for part in b.sets.values()] for b in (cached, streamed)] == [[True] * 2, [False] * 2]
    assert any(not torch.allclose(cached.at(s)["A"], -cached.at(s)["B"], atol=1e-5) for s in range(4))
    assert all(torch.equal(cached.at(s)["A"], streamed.at(s)["A"]) for s in range(4))


def test_crops_lie_inside_and_distortion_of_nothing_is_identity():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(16, 1, 8, 8)
    cut = crop_flip(x, (4, 4), False, torch.Generator().manual_seed(0))
    assert all(torch.equal(c[0, 1, :] - c[0, 0, :], torch.full((4,), 8.0)) for c in cut)
    assert len({float(c[0, 0, 0]) for c in cut}) > 4
    flipped = crop_flip(x, (8, 8), True, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(picture, x[0].flip(2)) for picture in flipped]
    assert 0 < sum(mirrored) < 16
    assert all(mirror or torch.equal(picture, x[0]) for mirror, picture in zip(mirrored, flipped, strict=True))
    torch.testing.assert_close(distort(x, 0, 0, torch.Generator()), x)
    assert not torch.allclose(distort(x, 20, 0.1, torch.Generator().manual_seed(1)), x)


def test_a_quarter_turn_moves_pixels_of_pictures_that_are_not_square(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.ones(shape))  # the largest draw
    x = torch.arange(32.0).reshape(1, 1, 4, 8)
    turned = distort(x, 90, 0, torch.Generator())
    torch.testing.assert_close(turned[..., 2:6], x[..., 2:6].rot90(1, (2, 3)))
    ramp = torch.arange(8.0).expand(1, 1, 4, 8)
    wide = distort(ramp, 0, 0.25, torch.Generator())[0, 0, 0, 3:5]
    assert float(wide[1] - wide[0]) == pytest.approx(1 / 1.25)  # a quarter wider


def test_dcgan_steps_discriminator_first_then_generator_on_the_same_fakes(data):
    config = resolve("dcgan", None, [*FAST, *TINY["dcgan"], "model.loss=lsgan", "train.steps=1"])
    batches = Batches(data, config, "single")
    torch.manual_seed(0)
    ours = build(config.model)
    plain = copy.deepcopy(ours).train()
    g, d = plain.generators["G"], plain.discriminators["D"]
    adams = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (d, g)]
    torch.manual_seed(1)
    real = batches.at(0)["picture"]
    fake = g(torch.randn(len(real), 100))
    ((d(real).logits[0] - 1).square().mean() + d(fake.detach()).logits[0].square().mean()).backward()
    adams[0].step()
    (d(fake).logits[0] - 1).square().mean().backward()
    adams[1].step()
    torch.manual_seed(1)
    Trainer(ours, batches, config, Accelerator(cpu=True)).advance()
    for name, weight in plain.generators.state_dict().items():
        torch.testing.assert_close(ours.generators.state_dict()[name], weight, atol=1e-5, rtol=1e-4)


def test_a_launchers_accumulation_does_not_shrink_gradients(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")  # as `accelerate launch` hands it on
    sets = [*FAST, *TINY["cyclegan"], "train.steps=1"]
    run = Run(resolve("cyclegan", None, sets), data, tmp_path / "run", False)
    assert run.accelerator.gradient_accumulation_steps == 1


def test_learning_rate_by_epochs_and_by_steps():
    by_epochs = resolve("cyclegan", None, ["train.epochs=4", "train.decay_epochs=2"])
    factors = [rate_factor(by_epochs, step, 40, 10) for step in range(40)]
    assert factors == pytest.approx([1] * 20 + [2 / 3] * 10 + [1 / 3] * 10)
    by_steps = resolve("cyclegan", None, ["train.steps=4"])
    assert [rate_factor(by_steps, s, 4, 10) for s in range(4)] == pytest.approx([1, 1, 2 / 3, 1 / 3])


def test_ema_is_the_written_average():
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    ema, value = Ema(net, 0.5), 0.0
    for step in range(12):
        torch.nn.init.constant_(net.weight, step + 1.0)
        ema.update(net, step)
        d = min(0.5, (1 + step) / (10 + step))
        value = d * value + (1 - d) * (step + 1)
    assert float(ema.network.weight) == pytest.approx(value)


def test_each_step_takes_its_rates_and_its_place_in_the_schedules(data, tmp_path, monkeypatch):
    sets = [*FAST, *TINY["cyclegan"], "train.steps=4", "train.lr=0.001", "train.lr_discriminator=0.004"]
    trainer = Run(resolve("cyclegan", None, sets), data, tmp_path / "r", False).trainer
    terms, places, rates = trainer.model.generator_terms, [], []

    def placed(batch, fakes, progress):
        places.append(progress)
        return terms(batch, fakes, progress)

    monkeypatch.setattr(trainer.model, "generator_terms", placed)
    for _ in range(4):
        trainer.advance()
        rates += [trainer.optimisers[player].param_groups[0]["lr"] for player in ("generator", "discriminator")]
    assert places == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert rates == pytest.approx([f * r for f in (1, 1, 2 / 3, 1 / 3) for r in (0.001, 0.004)])


def test_discriminators_learn_from_pooled_fakes(data, tmp_path, monkeypatch):
    sets = [*FAST, *TINY["cyclegan"], "train.steps=8", "model.pool=1"]
    trainer = Run(resolve("cyclegan", None, sets), data, tmp_path / "r", False).trainer
    generate, judge, made, shown = trainer.model.generate, trainer.model.discriminator_terms, [], []

    def generated(batch, progress):
        fakes = generate(batch, progress)
        made.append(fakes["A"].detach().clone())
        return fakes

    def judged(batch, fakes, progress):
        shown.append(next(step for step, fake in enumerate(made) if torch.equal(fake, fakes["A"])))
        return judge(batch, fakes, progress)

    monkeypatch.setattr(trainer.model, "generate", generated)
    monkeypatch.setattr(trainer.model, "discriminator_terms", judged)
    for _ in range(8):
        trainer.advance()
    assert len(shown) == 8
    assert any(step < now for now, step in enumerate(shown))


def test_a_run_stores_the_average_of_its_steps(data, tmp_path):
    sets = [*FAST, *TINY["cyclegan"], "train.steps=3", "train.ema=0.2"]
    run = Run(resolve("cyclegan", None, sets), data, tmp_path / "r", False)
    live, advance = run.trainer.model.generators["AB"], run.trainer.advance
    mean = {name: weight.detach().clone() for name, weight in live.named_parameters()}

    def followed():
        step = run.trainer.step
        advance()
        d = min(0.2, (1 + step) / (10 + step))
        for name, weight in live.named_parameters():
            mean[name] = d * mean[name] + (1 - d) * weight.detach()

    run.trainer.advance = followed
    run.go()
    stored = dict(load_weights(tmp_path / "r" / "weights").generators["AB"].named_parameters())
    for name, weight in live.named_parameters():
        torch.testing.assert_close(stored[name].detach(), mean[name])
        assert name.endswith("bias") or not torch.equal(weight, stored[name])


def test_emulated_precision_is_refused(monkeypatch):
    monkeypatch.setattr(device, "native_bf16", lambda: False)
    with pytest.raises(InputError, match="bf16 on a CPU without"):
        device.check_precision("bf16", cpu=True)
    with pytest.raises(InputError, match="fp16 on a CPU"):
        device.check_precision("fp16", cpu=True)
    monkeypatch.setattr(device, "native_bf16", lambda: True)
    device.check_precision("bf16", cpu=True)


def test_page_and_curves_stay_bounded(tmp_path):
    curves = Curves()
    for step in range(5000):
        curves.add(step, {"G": 1.0, "D_real": 0.5})
    assert len(curves.steps) < CURVE_POINTS
    assert curves.steps[0] == 0
    assert curves.steps[-1] > 4900
    (tmp_path / "samples").mkdir()
    for step in range(60):
        run_page.save_grid([torch.zeros(2, 3, 4, 4)] * 2, tmp_path / "samples" / f"step-{step:09d}.png")
        run_page.write_page(tmp_path, "<run>", "", curves, "{}")
    left = sorted((tmp_path / "samples").glob("*.png"))
    assert len(left) <= run_page.MAX_GRIDS
    assert left[0].name == "step-000000000.png"
    assert left[-1].name == "step-000000059.png"
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") == len(left)
    assert "&lt;run&gt;" in page
    assert len(page) < 60_000
    run_page.write_figure("a & b", curves, tmp_path / "curves.svg")
    figure = ElementTree.parse(tmp_path / "curves.svg").getroot()
    lines = [part for part in figure if part.tag.endswith("polyline")]
    ys = [float(point.split(",")[1]) for line in lines for point in line.get("points").split()]
    assert len(lines) == 2
    assert {round(y) for y in ys} == {0, 120}  # the largest value on top, half of it in the middle


def test_log_drops_lines_after_the_checkpoint_and_a_torn_one(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text('{"step": 2, "losses": {"G": 1.0}}\n{"step": 4, "losses": {"G": 2.0}}\n{"step": 6, "lo')
    log = RunLog(path, 3)
    assert log.curves.steps == [2]
    log.add(4, {"G": 3.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2, 4]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes_of_batch_one_train_as_one_of_batch_two(data, tmp_path):
    sets = [*FAST, *TINY["cyclegan"], "train.steps=4", "model.pool=0", "data.flip=false"]

    def process(rank, port):
        """What `accelerate launch` starts for several GPUs; on CPUs it would start one process."""
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))  # fmt: skip
        train("cyclegan", data, tmp_path / "two", sets=sets)

    train("cyclegan", data, tmp_path / "one", sets=[*sets, "train.batch_size=2"])
    train("cyclegan", data, tmp_path / "start", sets=[*sets, "train.lr=1e-12"])
    two = [Fork(lambda rank=rank, port=port: process(rank, port)) for port in [free_port()] for rank in range(2)]
    assert [one.wait() for one in two] == [0, 0], [one.stdout.read() for one in two]
    # pictures, not weights: a bias before instance norm has no gradient but rounding, which Adam scales up
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    one, two, start = (
        load_weights(tmp_path / run / "weights").generators["AB"](x).detach() for run in ("one", "two", "start")
    )
    assert (one - two).abs().max() < 0.02 * (one - start).abs().max()
    logs = [(tmp_path / run / "losses.jsonl").read_text().splitlines() for run in ("one", "two")]
    whole, halves = ([json.loads(line)["losses"] for line in lines] for lines in logs)
    assert len(halves) == 2
    assert halves[0] == pytest.approx(whole[0], rel=0.01)  # of both processes, not of the one that writes
    head = json.loads((tmp_path / "two" / "checkpoints" / "step-000000004" / "step.json").read_text())
    assert head["ranks"] == ["rank-0", "rank-1"]
    with pytest.raises(InputError, match="of 2 processes in a training on 1; allowed: the number"):
        train("cyclegan", data, tmp_path / "two", resume=True)
