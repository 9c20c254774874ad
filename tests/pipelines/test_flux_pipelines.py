"""The contract of pipelines on packed transformers: folders, files, callbacks, embeddings, LoRA."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_utils
from diffusers.utils import convert_state_dict_to_diffusers
from flux_kinds import KINDS, LENGTH, STEPS, picture, wrapped
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformer_layouts import flux, prefixed

import freectl
from freectl import methods
from freectl.errors import FreectlError, InputError
from freectl.models.engine import Engine
from freectl.pipelines.loading import load_pipeline, resolve_model


def opened(model: Path, **options: Any) -> Any:
    pipe = load_pipeline(resolve_model(str(model)), device="cpu", dtype=torch.float32, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def same_weights(one: Any, other: Any) -> bool:
    parts = [(getattr(one, name), part) for name, part in other.components.items() if isinstance(part, torch.nn.Module)]
    states = [(a.state_dict(), b.state_dict()) for a, b in parts]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in states)


@pytest.fixture(scope="module")
def folders(toys, tmp_path_factory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("models") / name for name in KINDS}
    for name, folder in made.items():
        toys[name].ours.save_pretrained(folder)
    return made


def test_they_save_and_open_by_either_class_and_by_model(toys, folders):
    for name, toy in toys.items():
        made = opened(folders[name])
        assert type(made) is type(toy.ours)
        assert made.config.max_sequence_length == LENGTH
        assert Engine(made).family.name == name
        assert same_weights(made, toy.ours)
        if name in {"flux", "klein-distilled"}:
            plain = type(toy.plain).from_pretrained(folders[name])
            assert type(plain) is type(toy.plain)
            again = type(toy.ours).from_pipe(plain, max_sequence_length=LENGTH)
            assert type(again) is type(toy.ours)
            assert Engine(again).family.name == name
            got, expected = (
                toy.sdedit(pipe=pipe, latents=toy.noise(), num_inference_steps=1) for pipe in (made, again)
            )
            np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=name)


def test_a_method_it_does_not_run_is_refused_before_weights_are_read(folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folders["klein-distilled"], folder)
    for weights in folder.rglob("*.safetensors"):
        save_file({"nothing": torch.zeros(1)}, weights)
    with pytest.raises(InputError, match="method: found freecontrol on a klein-distilled model distilled"):
        freectl.edit(picture(), "a cat", model=str(folder))
    with pytest.raises(FreectlError, match="lacks"):
        freectl.edit(picture(), "a cat", method="sdedit", model=str(folder))


def test_an_edit_by_model_folder(folders):
    """Fitted to sizes of whole tokens, and restored to the picture's."""
    given = {"method": "sdedit", "model": str(folders["flux"]), "steps": 2, "cache": False}
    done = freectl.edit(picture(size=(70, 50)), "a cat", **given)
    assert done.image.size == (70, 50)
    assert done.cost["row_forwards"] == 1


def original(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """FLUX.2's transformer under its publishers' names: query, key and value in one, shift before scale at the end."""
    names = {
        "x_embedder": "img_in",
        "context_embedder": "txt_in",
        "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "stream_modulation_img.linear": "stream_modulation_img.lin",
        "stream_modulation_txt.linear": "stream_modulation_txt.lin",
        "single_stream_modulation.linear": "single_stream_modulation.lin",
        "proj_out": "final_layer.linear",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
        "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
        "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
        "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
        "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
        "attn.to_out.0": "img_attn.proj",
        "attn.to_add_out": "txt_attn.proj",
        "ff.linear_in": "img_mlp.0",
        "ff.linear_out": "img_mlp.2",
        "ff_context.linear_in": "txt_mlp.0",
        "ff_context.linear_out": "txt_mlp.2",
    }
    single = {
        "attn.to_qkv_mlp_proj": "linear1",
        "attn.to_out": "linear2",
        "attn.norm_q.weight": "norm.query_norm.scale",
    }
    single |= {"attn.norm_k.weight": "norm.key_norm.scale", "single_transformer_blocks": "single_blocks"}
    made = {}
    for name, value in state.items():
        place, tensor, fused = name, value, {"to_q": "img", "add_q_proj": "txt"}
        if name.startswith("transformer_blocks") and name.split(".")[3] in ("to_k", "to_v", "add_k_proj", "add_v_proj"):
            continue
        for ours, theirs in (single if name.startswith("single_t") else names).items():
            place = place.replace(ours, theirs)
        for query, side in fused.items():
            if f".attn.{query}." in name:
                each = [state[name.replace(query, query.replace("q", letter))] for letter in "qkv"]
                place, tensor = place.replace(f"attn.{query}", f"{side}_attn.qkv"), torch.cat(each)
        if name.startswith("norm_out"):
            tensor = torch.cat(value.chunk(2)[::-1])
        made[place.replace("transformer_blocks", "double_blocks")] = tensor.clone().contiguous()
    return made


@pytest.fixture
def of_toy_width(monkeypatch) -> None:
    """FLUX.1's and Chroma's conversions have the published width as a constant."""
    for name in ("flux", "chroma"):
        made = getattr(single_file_utils, f"convert_{name}_transformer_checkpoint_to_diffusers")
        constants = tuple(32 if one == 3072 else one for one in made.__code__.co_consts)
        assert constants != made.__code__.co_consts
        monkeypatch.setattr(made, "__code__", made.__code__.replace(co_consts=constants))


def test_a_transformers_file_stands_in_for_a_folders_own(toys, folders, tmp_path, of_toy_width):
    """In its publishers' layout and in diffusers'; the folder beside it has the rest, and no transformer's weights."""
    layouts = {"klein": original, "chroma": flux, "flux": lambda state: prefixed(flux(state)), "flux-schnell": dict}
    for name, layout in layouts.items():
        file = tmp_path / f"{name}.safetensors"
        shutil.copytree(folders[name], file.with_suffix(""))
        for weights in (file.with_suffix("") / "transformer").glob("*.safetensors"):
            weights.unlink()
        state = toys[name].ours.transformer.state_dict()
        save_file(layout(state), file)
        made = opened(file)
        assert type(made) is type(toys[name].ours)
        got = made.transformer.state_dict()
        assert got.keys() == state.keys()
        assert all(torch.equal(got[key], value) for key, value in state.items()), name
    file.rename(tmp_path / "alone.safetensors")
    with pytest.raises(InputError, match="alone.safetensors', a transformer alone.*allowed: one beside a folder"):
        opened(tmp_path / "alone.safetensors")


def test_a_file_alone_says_what_else_it_needs(toys, tmp_path):
    save_file(original(toys["klein"].ours.transformer.state_dict()), tmp_path / "alone.safetensors")
    with pytest.raises(FreectlError) as caught:
        opened(tmp_path / "alone.safetensors")
    for part in ("VAE, text encoders and configuration are those of black-forest-labs/FLUX.2-dev", "--exclude"):
        assert part in str(caught.value)


def test_callbacks_see_what_diffusers_shows_and_change_it(toys):
    names = ["latents", "prompt_embeds"]
    for name in ("flux", "chroma", "flux2", "klein"):
        toy = toys[name]
        seen: dict[str, list[dict[str, torch.Tensor]]] = {"theirs": [], "ours": []}

        def watch(_pipe, _index, _timestep, tensors, into: list) -> dict:
            into.append({key: value.clone() for key, value in tensors.items()})
            return {"latents": tensors["latents"] * 0}

        for who, call in (("theirs", toy.plainly), ("ours", toy.sdedit)):
            call(
                latents=toy.noise(),
                callback_on_step_end=lambda *given, into=seen[who]: watch(*given, into),
                callback_on_step_end_tensor_inputs=names,
            )
        assert len(seen["ours"]) == len(seen["theirs"]) == STEPS
        for ours, theirs in zip(seen["ours"], seen["theirs"], strict=True):
            for key in names:
                off = float((ours[key] - theirs[key]).abs().max() / theirs[key].abs().max())
                assert off <= 1e-5, (name, key)

    def stop(pipe, _index, _timestep, _tensors):
        pipe._interrupt = True
        return {}

    assert np.abs(toy.sdedit(callback_on_step_end=stop) - toy.sdedit()).max() > 1e-3


def test_embeddings_and_packed_noise_stand_for_texts_and_latents(toys):
    given: dict[str, dict[str, str]] = {
        "flux": {"pooled_prompt_embeds": "pooled_projections"},
        "chroma": {"prompt_attention_mask": "text_mask"},
        "klein": {},
    }
    for name, told in given.items():
        toy, engine = toys[name], Engine(toys[name].ours)
        prompt = engine.encode_prompt(["a cat"])
        options = {argument: prompt.added["cond"][key] for argument, key in told.items()}
        packed = engine.family.packed(engine.network, toy.noise())
        got = toy.sdedit(None, prompt_embeds=prompt.cond, latents=packed, **options)
        np.testing.assert_allclose(got, toy.sdedit(latents=toy.noise()), atol=1e-6, err_msg=name)
        for argument in told:
            with pytest.raises(InputError, match=f"{argument}: found None"):
                toy.sdedit(None, prompt_embeds=prompt.cond)
        with pytest.raises(InputError, match="latents: found"):
            toy.sdedit(latents=packed[:, 1:])


def test_a_lora_and_its_scale(toys, tmp_path):
    for name in ("flux", "klein"):
        toy = toys[name]
        taught = copy.deepcopy(toy.plain)
        layers = LoraConfig(r=2, lora_alpha=2, target_modules=["to_k"], init_lora_weights=False)
        taught.transformer.add_adapter(layers)
        state = convert_state_dict_to_diffusers(get_peft_model_state_dict(taught.transformer))
        type(taught).save_lora_weights(tmp_path / name, transformer_lora_layers=state)
        ours, free = wrapped(toy.kind, copy.deepcopy(toy.plain)), toy.sdedit(latents=toy.noise())
        ours.load_lora_weights(tmp_path / name)
        scale = {"attention_kwargs" if name == "klein" else "joint_attention_kwargs": {"scale": 0.5}}
        half = toy.sdedit(pipe=ours, latents=toy.noise(), **scale)
        expected = toy.plainly(taught, toy.noise(), **scale)
        np.testing.assert_allclose(half, expected, atol=1e-5, err_msg=name)
        assert np.abs(half - free).max() > 1e-4


def test_what_is_longer_than_t5_reads_is_told_of(toys):
    long = " ".join(["red"] * LENGTH) + " grass"
    for name in ("flux", "chroma", "klein"):
        made = toys[name].run(long, picture(), method=methods.get("sdedit"), output_type="np")
        assert any("prompt is longer than the 24 tokens" in text and "grass" in text for text in made.warnings), name
