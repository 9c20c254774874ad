"""Files of a transformer alone, of families whose layout does not say which of several models they are."""

import shutil
from pathlib import Path

import pytest
import torch
from dit_toys import TOYS
from safetensors.torch import save_file
from transformer_layouts import prefixed, z_image

from freectl.errors import InputError
from freectl.pipelines.loading import load_pipeline, resolve_model

LAYOUTS = {"qwen-image": (dict, prefixed), "z-image": (z_image,)}
"""As they are published, and with a prefix."""


def without_transformer(folder: Path) -> None:
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()


def test_a_file_of_the_transformer_alone_stands_beside_a_folder_with_the_rest(tmp_path):
    for name, layouts in LAYOUTS.items():
        pipe, file = TOYS[name].wrap(TOYS[name].build(tmp_path)), tmp_path / "tuned.safetensors"
        network = pipe.transformer
        for layout in layouts:
            save_file(layout(network.state_dict()), file)
            source = resolve_model(str(file))
            with pytest.raises(InputError, match="tuned.safetensors', a transformer alone .*one beside a folder"):
                load_pipeline(source, device="cpu", dtype=torch.float32)
            pipe.save_pretrained(file.with_suffix(""))
            without_transformer(file.with_suffix(""))
            made = load_pipeline(source, device="cpu", dtype=torch.float32)
            assert type(made) is type(pipe)
            got = made.transformer.state_dict()
            assert got.keys() == network.state_dict().keys()
            assert all(torch.equal(got[key], value) for key, value in network.state_dict().items())
            shutil.rmtree(file.with_suffix(""))


def test_a_file_of_which_diffusers_reads_none_is_refused_by_name(tmp_path):
    pipe, file = TOYS["pixart"].wrap(TOYS["pixart"].build(tmp_path)), tmp_path / "tuned.safetensors"
    save_file(pipe.transformer.state_dict(), file)
    pipe.save_pretrained(file.with_suffix(""))
    without_transformer(file.with_suffix(""))
    with pytest.raises(InputError, match="of a PixArtTransformer2DModel, of which diffusers reads no single file"):
        load_pipeline(resolve_model(str(file)), device="cpu", dtype=torch.float32)
