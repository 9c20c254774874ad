"""From `--model` to a pipeline: folders, hub ids and single files of each family, LoRA and textual inversion."""

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from ldm_layout import single_file
from PIL import Image
from safetensors.torch import save_file
from toy import TEXT_WIDTH

import freectl
from freectl.errors import FreectlError, InputError
from freectl.models import families
from freectl.models.engine import Engine
from freectl.pipelines import checkpoints, loading, opening
from freectl.pipelines.loading import check_adapters, load_pipeline, resolve_device, resolve_dtype, resolve_model

NAMES = ("sd1", "sd2", "sdxl")
CLASSES = {"sd1": "FreeControlPipeline", "sd2": "FreeControlPipeline", "sdxl": "FreeControlXLPipeline"}


@pytest.fixture(scope="module")
def folders(true_pipes, tmp_path_factory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("models") / name for name in NAMES}
    for name, folder in made.items():
        true_pipes[name].save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def single(true_pipes, folders, tmp_path_factory) -> dict[str, Path]:
    """One file a family in the original layout, its configuration in the folder of its name."""
    made = {}
    for name in ("sd1", "sdxl"):
        made[name] = tmp_path_factory.mktemp("single") / f"{name}.safetensors"
        save_file(single_file(true_pipes[name]), made[name])
        shutil.copytree(folders[name], made[name].with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    return made


def load(model: Path | str, **options: Any) -> Any:
    pipe = load_pipeline(resolve_model(str(model)), device="cpu", dtype=torch.float32, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def same_weights(pipe: Any, toy: Any) -> None:
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(toy, part, None) is not None:
            expected, got = getattr(toy, part).state_dict(), getattr(pipe, part).state_dict()
            assert expected.keys() == got.keys()
            assert all(torch.equal(got[key], value) for key, value in expected.items()), part


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_gives_the_class_of_its_family(true_pipes, folders, name):
    pipe = load(folders[name])
    assert type(pipe).__name__ == CLASSES[name]
    same_weights(pipe, true_pipes[name])
    assert pipe.scheduler.config.prediction_type == ("v_prediction" if name == "sd2" else "epsilon")


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_single_file_gives_the_same_networks(true_pipes, single, name):
    pipe = load(single[name])
    assert type(pipe).__name__ == CLASSES[name]
    same_weights(pipe, true_pipes[name])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub cache, and a function that puts a folder there under a hub id."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name: str, folder: Path, *ignored: str) -> None:
        repository, commit = tmp_path / "hub" / f"models--{name.replace('/', '--')}", "0" * 40
        shutil.copytree(folder, repository / "snapshots" / commit, ignore=shutil.ignore_patterns(*ignored))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)

    return put


def test_a_hub_id_comes_from_the_local_cache(true_pipes, folders, hub):
    hub("someone/toy-xl", folders["sdxl"])
    pipe = load("someone/toy-xl")
    assert type(pipe).__name__ == CLASSES["sdxl"]
    same_weights(pipe, true_pipes["sdxl"])


def test_a_single_file_alone_needs_its_configuration_from_the_hub(true_pipes, folders, single, hub, tmp_path):
    alone = tmp_path / "alone.safetensors"
    shutil.copy(single["sdxl"], alone)
    published = "stabilityai/stable-diffusion-xl-base-1.0"
    assert checkpoints.configuration(alone) == published
    with pytest.raises(FreectlError) as caught:
        load(alone)
    for part in (f"those of {published}", f"`hf download {published} --include", f"folder '{tmp_path / 'alone'}'"):
        assert part in str(caught.value)
    hub(published, folders["sdxl"], "*.safetensors")
    same_weights(load(alone), true_pipes["sdxl"])


KEYS = {"model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3), "first_stage_model.quant_conv.bias": (8,)}
KEYS |= {"cond_stage_model.logit_scale": (1,)}
V2 = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({}, "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ({V2: (2, 1024)}, "stabilityai/stable-diffusion-2-1"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (8, 9, 3, 3)}, "of kind 'inpainting'"),
    ],
)
def test_a_files_family_is_read_off_its_header(tmp_path, extra, found):
    path = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in (KEYS | extra).items()}, path)
    assert resolve_model(str(path)).kind == "file"
    if "/" in found:
        assert checkpoints.configuration(path) == found
    else:
        with pytest.raises(InputError, match=f"--model: found .*{found}: an inpainting model.*; allowed: .*--keep"):
            load(path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["unet.down.lora_A.weight"], "a LoRA; allowed: .*--lora"),
        (["model.diffusion_model.a"], "without VAE, text encoder"),
        (["decoder.conv_in.weight"], "without UNet, VAE, text encoder"),
    ],
)
def test_files_that_are_no_whole_model(tmp_path, names, found):
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=f"--model: found file '.*a.safetensors'.*{found}"):
        resolve_model(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("index", "found"),
    [
        (
            '{"_class_name": "AuraFlowPipeline", "transformer": ["diffusers", "AuraFlowTransformer2DModel"]}',
            "an? AuraFlow",
        ),
        ("[1]", "damaged"),
        ("{", "damaged"),
    ],
)
def test_folders_of_other_models(tmp_path, index, found):
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(InputError, match=f"--model: found folder.*{found}.*allowed: .* of Stable Diffusion 1.x"):
        resolve_model(str(tmp_path))


def test_a_unet_of_no_family_is_refused_before_weights_are_read(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "load_parts", lambda *_: pytest.fail("weights were read"))
    shutil.copytree(folders["sd1"], tmp_path / "odd")
    config = tmp_path / "odd" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 9}))
    with pytest.raises(InputError, match="--model: found a UNet with 4 levels, 9 channels in .*up_blocks.1"):
        load(tmp_path / "odd")


# Textual inversion


def vectors(count: int, width: int = TEXT_WIDTH) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("tensor", "count", "word"), [("<fox>", 1, "<fox>"), ("emb_params", 3, "my-fox")])
def test_a_learnt_word_and_its_vectors(folders, tmp_path, tensor, count, word):
    """A file as diffusers writes it names its word; one of another tool is named by its file."""
    path = tmp_path / "my-fox.safetensors"
    save_file({tensor: vectors(count)}, path)
    plain = load(folders["sd1"])
    pipe = load(folders["sd1"], textual_inversion=[str(path)])
    words = [word, *(f"{word}_{i}" for i in range(1, count))]
    ids = pipe.tokenizer.convert_tokens_to_ids(words)
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], vectors(count))
    engine, before = Engine(pipe), Engine(plain)
    start = engine.token_positions("a dog", "dog")
    assert engine.token_positions(f"a {word} dog", word) == list(range(2, 2 + count))
    assert engine.token_positions(f"a {word} dog", "dog") == [place + count for place in start]
    assert engine.model_key()["words"] != before.model_key()["words"]
    assert not torch.equal(engine.encode_prompt([word]).cond, before.encode_prompt([word]).cond)
    assert torch.equal(engine.encode_prompt(["a dog"]).cond, before.encode_prompt(["a dog"]).cond)


def test_a_learnt_word_of_xl_reaches_both_encoders(folders, true_pipes, tmp_path):
    path, second = tmp_path / "fox.safetensors", true_pipes["sdxl"].text_encoder_2.config.hidden_size
    save_file({"clip_l": vectors(2), "clip_g": vectors(2, second)}, path)
    pipe = load(folders["sdxl"], textual_inversion=[str(path)])
    for suffix, width in (("", TEXT_WIDTH), ("_2", second)):
        ids = getattr(pipe, f"tokenizer{suffix}").convert_tokens_to_ids(["fox", "fox_1"])
        weight = getattr(pipe, f"text_encoder{suffix}").get_input_embeddings().weight
        assert torch.equal(weight[ids], vectors(2, width))
    with pytest.raises(InputError, match="--textual-inversion: found .*allowed: one tensor, as this model takes"):
        load(folders["sd1"], textual_inversion=[str(path)])


def test_word_files_that_do_not_fit(folders, tmp_path):
    path = tmp_path / "wide.safetensors"
    save_file({"<wide>": vectors(1, 5)}, path)
    with pytest.raises(InputError, match="--textual-inversion: found .*wide.safetensors', which cannot be loaded"):
        load(folders["sd1"], textual_inversion=[str(path)])
    save_file({"a": vectors(1), "b": vectors(1)}, path)
    with pytest.raises(InputError, match="--textual-inversion: found .* with 2 tensors.*clip_l and clip_g"):
        check_adapters((), [str(path)])
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="--textual-inversion: found .*damaged"):
        check_adapters((), [str(path)])
    for name, found in (("no.safetensors", "no file"), (str(Path(__file__)), "pickled ones are refused")):
        with pytest.raises(InputError, match=f"--textual-inversion: found .*{found}"):
            check_adapters((), [name])


def test_an_edit_with_a_learnt_word(folders, tmp_path):
    save_file({"<fox>": 5 * vectors(2)}, tmp_path / "fox.safetensors")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    options = {"model": str(folders["sd1"]), "method": "sdedit", "steps": 2}
    learnt = freectl.edit(image, "a <fox>", textual_inversion=str(tmp_path / "fox.safetensors"), **options)
    assert learnt.settings["textual_inversion"] == [str(tmp_path / "fox.safetensors")]
    assert np.any(np.asarray(learnt.image) != np.asarray(freectl.edit(image, "a <fox>", **options).image))


# Where it runs


@pytest.mark.parametrize(
    ("cuda", "mps", "asked", "device", "dtype"),
    [
        (True, False, "auto", "cuda", torch.float16),
        (False, True, "auto", "mps", torch.float16),
        (True, True, "mps", "mps", torch.float16),
        (True, False, "cuda:1", "cuda:1", torch.float16),
        (True, True, "cpu", "cpu", torch.float32),
        (False, False, "auto", "cpu", torch.float32),
    ],
)
def test_device_and_dtype(monkeypatch, cuda, mps, asked, device, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device(asked)[0] == device
    assert resolve_dtype("auto", device)[0] == dtype
    flow = SimpleNamespace(component="transformer")
    monkeypatch.setattr(loading, "known_family", lambda source: (flow, False) if source == "flow" else None)
    assert resolve_dtype("auto", device, "flow")[0] == (torch.float32 if device == "cpu" else torch.bfloat16)
    assert resolve_dtype("auto", device, "unknown")[0] == dtype
    for absent in {"cuda", "mps"} - {name for name, there in (("cuda", cuda), ("mps", mps)) if there}:
        with pytest.raises(InputError, match=f"--device: found '{absent}'"):
            resolve_device(absent)
    if device != "cpu":
        loading.check_offload("model", device)


def test_noise_is_drawn_on_the_cpu_whatever_the_device(true_pipes):
    """The same seed is the same noise on every machine; "meta" stands for a device of another kind."""
    engine = Engine(true_pipes["sd1"])
    seeds = [torch.Generator().manual_seed(i) for i in (3, 4)]
    expected = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (3, 4)])
    assert torch.equal(engine.noise((64, 64), seeds), expected)
    other = copy.copy(engine)
    other.device = torch.device("meta")
    assert other.noise((64, 64), seeds).device.type == "meta"
    assert seeds[0].get_state().ne(torch.Generator().manual_seed(3).get_state()).any()  # drawn here, then moved


def test_families_found_in_four_threads_leave_networks_with_weights(true_pipes, tmp_path):
    """Each looks at a network without weights, for which a function of torch is swapped meanwhile."""
    true_pipes["sd1"].save_config(tmp_path)
    true_pipes["sd1"].unet.save_config(tmp_path / "unet")
    before = torch.nn.Module.register_parameter
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: checkpoints.family_of(str(tmp_path), "model"), range(16)))
    assert all(one is families.SD for one in found)
    assert torch.nn.Module.register_parameter is before
