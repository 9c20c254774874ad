"""What bounds the method: a linear reader of outlines, and edits that follow the exact answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flow_toy import small_sd3
from sklearn.linear_model import Ridge

from eval.bench.mini import scene_case
from eval.bench.mini_files import load_mini
from eval.bench.world import world_side
from eval.run.runners import Model, load_model
from eval.showcase import blocks, ceiling, probe
from freectl.models.engine import Engine
from freectl.pipelines.sd3 import FreeControl3Pipeline
from freectl.semantics.lookup import EMBEDDED, load


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", 2, 3, device="cpu", dtype="fp32")


def test_patches_are_what_each_token_covers() -> None:
    masks = torch.rand(2, 12, 8, generator=torch.Generator().manual_seed(0))
    cut = probe.patches(masks, 16)
    for token in range(16):
        row, column = divmod(token, 4)
        block = masks[:, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2]
        assert torch.equal(cut[:, token], block.reshape(2, -1))


def test_a_reader_is_ridge_regression_and_finds_what_is_there_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(16, 8, 8, generator=generator) > 0.5).float()
    noise, cut = torch.randn(16, 4, 5, generator=generator), probe.patches(masks, 4)
    assert min(probe.reconstructed(torch.cat([cut, noise], 2), masks, ridge=1e-6)) == 1
    mixed = noise + 0.3 * cut[..., :5]
    flat = mixed[:12].flatten(0, 1).double().numpy()
    mean, spread = flat.mean(0), flat.std(0, ddof=1)
    fitted = Ridge(alpha=10).fit((flat - mean) / spread, cut[:12].flatten(0, 1).double().numpy())
    read = fitted.predict((mixed[12:].flatten(0, 1).double().numpy() - mean) / spread).reshape(4, -1) > 0.5
    true = cut[12:].flatten(1).numpy() > 0.5
    expected = [(a & b).sum() / (a | b).sum() for a, b in zip(read, true, strict=True)]
    assert probe.reconstructed(mixed, masks) == pytest.approx(expected)
    assert np.mean(expected) < 0.9


def test_outlines_are_read_from_the_embedded_models_features(model: Model) -> None:
    engine = Engine(model.pipe)
    settings = ceiling.settings_of(engine)
    sites = engine.family.structure_sites(engine.network, settings.layers, settings.features)[-1:]
    rows = list(probe.probe(engine, load(EMBEDDED), 12, sites, world_side()))
    assert {row.level for row in rows} == {None, *probe.LEVELS}
    assert all(0 <= row.iou.mean <= 1 and row.iou.count == 3 for row in rows)
    assert {f"{sites[0]}, {most} components" for most in probe.COMPONENTS} <= {row.what for row in rows}


def test_the_share_of_the_place_is_that_of_the_variances() -> None:
    generator = torch.Generator().manual_seed(0)
    place, noise = torch.randn(1, 400, 6, generator=generator), torch.randn(60, 400, 6, generator=generator)
    assert blocks.place_share(place.expand(60, -1, -1)) == pytest.approx(1)
    assert blocks.place_share(noise) == pytest.approx(0, abs=0.003)
    for spread in (0.5, 2.0):
        assert blocks.place_share(spread * place + noise) == pytest.approx(spread**2 / (1 + spread**2), abs=0.02)


def test_what_is_shown_is_named_where_it_is_in_the_features() -> None:
    words = ["cat", "fox", "dog", "car"] * 15
    of_words = torch.eye(4).repeat(15, 1)[:, None].expand(-1, 9, -1)
    noise = torch.randn(60, 9, 4, generator=torch.Generator().manual_seed(0))
    assert all(blocks.named(3 * of_words + noise, words))
    assert np.mean(blocks.named(noise, words)) < 0.7


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_every_block_is_asked(model: Model, tmp_path, kind: str) -> None:
    """Keys behind their norms and before, in the order in which they run."""
    pipe = model.pipe if kind == "unet" else FreeControl3Pipeline.from_pipe(small_sd3(tmp_path))
    engine = Engine(pipe)
    sites = blocks.key_sites(engine)
    normed = [site for site in sites if site.endswith("norm_k")]
    depth = len(engine.family.self_layers(engine.network))
    assert len(sites) - len(normed) == depth
    assert len(normed) in (0, depth)
    (site, rows) = sites[-1], list(blocks.known(engine, 12, sites[-1:], 64 if kind == "transformer" else world_side()))
    assert [(row.site, row.level) for row in rows] == [(site, level) for level in probe.LEVELS]
    assert all(0 <= row.place <= 1 and row.object.count == 3 for row in rows)


def test_an_oracle_whose_answer_is_the_input_is_the_plain_edit(model: Model) -> None:
    case = load_mini().cases[0]
    source = case.scenes[0]
    same = scene_case("same", "object", source, source)
    pictures = [way(model, same).tobytes() for way in (ceiling.plain, ceiling.oracle, ceiling.oracle_and_start)]
    assert pictures[0] == pictures[1] == pictures[2]
    other = replace(case, prompt=same.prompt)
    assert ceiling.plain(model, other).tobytes() == pictures[0]
    assert ceiling.oracle(model, other).tobytes() != pictures[0]
    assert ceiling.decoded(model, same).size == same.picture().size
    scores = {"target": 1.0, "iou": 0.5, "mse": 0.25, "background_mse": 0.0}
    text = ceiling.table({"a": [scores] * 3, "b": [scores | {"iou": 0.75}] * 3})
    assert "| b - a | 0.0 (" in text
    assert "0.250 (0.250 to 0.250)" in text
