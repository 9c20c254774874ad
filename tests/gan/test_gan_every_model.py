"""What holds for every model: gradients on one side only, exact resume, use from the weights folder alone."""

import shutil
import signal

import pytest
import torch
from gan_toy import FAST, TINY, batch_for, folder_for

from gan_baselines.config import MODELS, PRESETS, RunConfig, layout_of
from gan_baselines.errors import TrainingStoppedError
from gan_baselines.inference import sample, translate
from gan_baselines.models import build
from gan_baselines.settings import resolve
from gan_baselines.training.run import Run, train
from gan_baselines.weights import load_weights

MARKS = {"classes": '["even", "odd"]', "words": '["a", "b", "disc"]', "length": 3, "labels": 3, "instances": "true"}


def model(name, *sets, seed=0):
    torch.manual_seed(seed)
    marks = [f"model.{key}={value}" for key, value in MARKS.items() if key in MODELS[name].model_fields]
    return build(resolve(name, None, [*TINY[name], *marks, *sets]).model)


def total(terms):
    return torch.stack(list(terms.values())).sum()


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_fit_their_models(name, preset):
    config = resolve(name, None, (), preset)
    assert isinstance(config, RunConfig)
    if preset == "small":
        assert config.data.size == 64
        assert config.model.side in (None, 64)


@pytest.mark.parametrize("name", list(MODELS))
def test_each_side_leaves_the_other_sides_and_the_helpers_gradients(name):
    net, x = model(name).train(), batch_for(name)
    fakes = net.generate(x, 0.5)
    net.discriminators.requires_grad_(False)
    total(net.generator_terms(x, fakes, 0.5)).backward()
    net.discriminators.requires_grad_(True)
    assert all(p.grad is None for p in net.discriminators.parameters())
    moved = [p.grad is not None and p.grad.abs().sum() > 0 for p in net.generators.parameters()]
    assert sum(moved) > len(moved) / 2
    if len(net.discriminators):
        before = [None if p.grad is None else p.grad.clone() for p in net.generators.parameters()]
        total(net.discriminator_terms(x, {k: v.detach() for k, v in fakes.items()}, 0.5)).backward()
        after = [p.grad for p in net.generators.parameters()]
        assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(before, after, strict=True))
        if name != "progan":  # whose other levels are not asked at this time
            assert all(p.grad is not None for p in net.discriminators.parameters())
    assert all(p.grad is None and not p.requires_grad for p in net.helpers.parameters())


# where numbers decide what is computed, a device without numbers cannot tell
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("cvaegan", "progan")])
def test_nothing_is_left_on_the_cpu(name):
    net = model(name, *(["model.encoder=false"] if name == "pix2pixhd" else [])).train().to("meta")
    x = {key: value.to("meta") for key, value in batch_for(name).items()}
    fakes = net.generate(x, 0.9)
    terms = net.generator_terms(x, fakes, 0.9)
    if len(net.discriminators):
        terms |= net.discriminator_terms(x, {key: value.detach() for key, value in fakes.items()}, 0.9)
    found = [*fakes.values(), *terms.values(), *net.preview(x)]
    assert {str(tensor.device) for tensor in found} == {"meta"}


@pytest.mark.parametrize("name", list(MODELS))
def test_half_precision_mixes_with_what_stays_single(name):
    net, x = model(name).train(), batch_for(name)
    with torch.autocast("cpu", torch.bfloat16):
        fakes = net.generate(x, 0.9)
    for terms, players in ((net.generator_terms, net.generators), (net.discriminator_terms, net.discriminators)):
        if not len(players):
            continue
        with torch.autocast("cpu", torch.bfloat16):
            shown = fakes if players is net.generators else {k: v.detach() for k, v in fakes.items()}
            value = total(terms(x, shown, 0.9))
        assert value.dtype == torch.float32
        assert value.isfinite()
        net.zero_grad()
        value.backward()
        grads = [p.grad for p in players.parameters() if p.grad is not None]
        assert grads
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("cyclegan", "pix2pix", "modified-cyclegan")])
def test_a_resumed_run_ends_in_the_same_bytes_and_works_from_its_weights_alone(name, data, tmp_path):
    sets = [*FAST, *TINY[name], "train.decay_epochs=0", "train.ema=0.5", "train.steps=4"]
    source = folder_for(data, name)
    train(name, source, tmp_path / "a", sets=sets)
    run = Run(resolve(name, None, sets), source, tmp_path / "b", False)
    advance = run.trainer.advance
    run.trainer.advance = lambda: (signal.raise_signal(signal.SIGTERM) if run.trainer.step == 1 else None, advance())
    with pytest.raises(TrainingStoppedError):
        run.go()
    assert train(name, source, tmp_path / "b", resume=True)["trained"] == 2
    folders = [tmp_path / run / "weights" for run in "ab"]
    ends = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert ends[0] == ends[1]
    shutil.move(folders[0], tmp_path / "alone")
    for run in "ab":
        shutil.rmtree(tmp_path / run)
    net = load_weights(tmp_path / "alone")
    x = batch_for(name)["A"][0]
    for direction in net.translators:
        only = load_weights(tmp_path / "alone", only=direction)
        made = [translate(w.translators[direction], x, w.multiple, seed=3) for w in (net, net, only)]
        assert made[0].shape == (3, 32, 32)
        assert made[0].abs().max() <= 1
        assert all(torch.equal(made[0], other) for other in made[1:])
    if net.noise_generator is not None:
        condition = conditions(net, name)
        pictures = [list(sample(net.noise_generator, 2, 5, batch=b, condition=condition)) for b in (1, 2)]
        # growing networks divide by the size of small numbers, which enlarges rounding
        torch.testing.assert_close(*(torch.stack(part) for part in pictures), atol=1e-3, rtol=1e-3)
        assert not torch.allclose(*pictures[0])
    assert net.translators or net.noise_generator is not None or name == "classifier"


def conditions(net, name):
    asked = {"classed": ("even", None), "captioned": (None, "disc a")}.get(layout_of(name), (None, None))
    return net.network.condition(*asked, None)
