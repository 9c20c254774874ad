"""Texts beyond the encoder's 77 tokens, in pieces: each as if it were alone, one behind the other."""

import numpy as np
import pytest
import torch
from flow_toy import sd3_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from method_kit import ON_UNETS
from PIL import Image

import freectl
from freectl import methods
from freectl.errors import InputError
from freectl.models.engine import Engine
from freectl.models.long_text import pieces
from freectl.pipelines.sd import FreeControlPipeline
from freectl.pipelines.sdxl import FreeControlXLPipeline
from freectl.tasks import edit as editing
from freectl.tasks.batch.bundles import goes_together

LETTERS = "abcdefghij "
WORDS = " ".join(LETTERS[:10] for _ in range(7))  # 70 tokens of the toy tokenizer, whose tokens are letters
LONG = f"{WORDS} a cat and {WORDS} a dog"
SPLIT = [f"{WORDS} a cat", f"and {WORDS} a", "dog"]
"""LONG by hand: as many whole words as 75 tokens hold."""


def lengths(texts):
    return [len(text.replace(" ", "")) for text in texts]


@settings(max_examples=60)
@given(st.text(alphabet=LETTERS, max_size=60), st.integers(1, 12))
def test_pieces_hold_all_words_in_order_and_as_many_as_fit(text, room):
    found = pieces(text, lengths, room)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert all(size <= room for size in lengths(found))
    if max(lengths(text.split()), default=0) <= room:
        assert " ".join(found).split() == text.split()
        for piece, after in zip(found, found[1:], strict=False):
            assert lengths([piece + after.split()[0]])[0] > room  # the next word had no room
    if lengths([text])[0] <= room:
        assert found == [text]


@pytest.fixture(params=["sd", "xl"])
def pipe(request, toy_pipe, toy_xl_pipe):
    """Its base's networks, shared."""
    base, kind = (toy_pipe, FreeControlPipeline) if request.param == "sd" else (toy_xl_pipe, FreeControlXLPipeline)
    made = kind(**base.components)
    made.set_progress_bar_config(disable=True)
    return made


def alone(pipe, texts, negative=None):
    """Embeddings by diffusers' own call: conditional, unconditional, and pooled ones where there are."""
    options = {"do_classifier_free_guidance": negative is not None, "negative_prompt": negative}
    return pipe.encode_prompt(texts, device="cpu", num_images_per_prompt=1, **options)


def engine(pipe, *texts):
    made = Engine(pipe, long_prompts=True)
    made.text.make_room(texts)
    return made


def test_short_texts_are_bit_equal(pipe):
    texts, negative = ["a cat", f"{WORDS} a cat"], ["", "grey"]
    plain = Engine(pipe).encode_prompt(texts, negative)
    long = engine(pipe, *texts, *negative).encode_prompt(texts, negative)
    assert torch.equal(plain.cond, long.cond)
    assert torch.equal(plain.uncond, long.uncond)


def test_pieces_are_encoded_one_by_one(pipe):
    made = engine(pipe, LONG, "a fox")
    assert [piece.strip() for piece in made.text.cut(LONG)] == SPLIT
    prompt = made.encode_prompt([LONG, "a fox"], ["grey", ""])
    each = [
        alone(pipe, [piece, short], ["grey" if i == 0 else "", ""])
        for i, (piece, short) in enumerate(zip(SPLIT, ["a fox", "", ""], strict=True))
    ]
    torch.testing.assert_close(prompt.cond, torch.cat([one[0] for one in each], 1))
    uncond = torch.cat([one[1] for one in each], 1)
    if len(each[0]) > 2:
        uncond[1] = 0  # an empty negative text is zeros in XL, all along
        assert torch.equal(prompt.added["cond"]["text_embeds"], each[0][2])
    torch.testing.assert_close(prompt.uncond, uncond)


def test_words_are_found_behind_the_first_piece(pipe):
    made = engine(pipe, LONG)
    assert made.token_positions(LONG, "cat") == [72, 73, 74]
    assert made.token_positions(LONG, "dog") == [2 * 77 + 1, 2 * 77 + 2, 2 * 77 + 3]
    assert made.token_positions(LONG, "cat and") == [72, 73, 74, 78, 79, 80]  # over an end
    with pytest.raises(InputError, match="--keep-concept: found 'fox'"):
        made.token_positions(LONG, "fox", "--keep-concept")


def picture():
    small = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)


def run(pipe, prompt=None, method="sdedit", **options):
    random = torch.Generator().manual_seed(0)
    shared = {"num_inference_steps": 2, "output_type": "pt", "generator": random, "method": methods.get(method)}
    return pipe(prompt, picture(), **shared, **options)


def test_an_edit_is_that_of_the_embeddings(pipe):
    out = run(pipe, LONG, long_prompts=True)
    assert not any("not seen" in text for text in out.warnings)
    each = [alone(pipe, [piece], [""]) for piece in SPLIT]
    given = {"prompt_embeds": torch.cat([one[0] for one in each], 1)}
    zero = len(each[0]) > 2
    given["negative_prompt_embeds"] = torch.cat([one[1] * 0 if zero else one[1] for one in each], 1)
    if zero:
        given |= {"pooled_prompt_embeds": each[0][2], "negative_pooled_prompt_embeds": each[0][3] * 0}
    torch.testing.assert_close(out.images, run(pipe, **given).images)
    cut = run(pipe, LONG)
    assert any("(long_prompts reads all); not seen: 'and" in text for text in cut.warnings)
    assert (out.images - cut.images).abs().max() > 1e-4


@pytest.mark.parametrize("method", [name for name in ON_UNETS if name != "p2p"])
def test_methods_run_with_texts_of_unequal_length(toy_pipe, method):
    if "image" not in methods.get(method).inputs:
        pytest.skip("takes no picture")
    pipe = FreeControlPipeline(**toy_pipe.components)
    pipe.set_progress_bar_config(disable=True)
    out = run(pipe, "a cat", method, source_prompt=LONG, negative_prompt=LONG[::-1], long_prompts=True)
    assert torch.isfinite(out.images).all()


def test_masks_of_words_behind_the_first_piece(toy_pipe):
    pipe = FreeControlPipeline(**toy_pipe.components)
    pipe.set_progress_bar_config(disable=True)
    shared = {"source_prompt": LONG, "long_prompts": True}
    assert run(pipe, LONG, keep="background", keep_concept="dog", **shared).kept is not None
    with pytest.raises(InputError, match="^keep: found 'dog', which is not in"):
        run(pipe, LONG, keep="background", keep_concept="dog", source_prompt=LONG)


def test_what_cannot_be_read_in_pieces_is_refused_by_name(toy_pipe):
    pipe = FreeControlPipeline(**toy_pipe.components)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(InputError, match="^long_prompts: found texts in several pieces with p2p"):
        run(pipe, LONG, "p2p", source_prompt="a dog", long_prompts=True)
    run(pipe, "a cat", "p2p", source_prompt="a dog", long_prompts=True)
    with pytest.raises(InputError, match="^long_prompts: found a text of 12 times the 77"):
        run(pipe, " ".join([WORDS] * 12), long_prompts=True)


def test_models_of_other_text_are_refused_before_they_load(tmp_path, monkeypatch):
    pipe = sd3_pipeline(tmp_path / "parts")
    match = "^long_prompts: found a sd3 model, whose text is one sequence"
    with pytest.raises(InputError, match=match):
        run(freectl.FreeControl3Pipeline.from_pipe(pipe), "a cat", long_prompts=True)
    pipe.save_pretrained(tmp_path / "sd3")
    monkeypatch.setattr(editing, "load_pipeline", None)
    with pytest.raises(InputError, match=match):
        freectl.edit(picture(), "a cat", "sdedit", str(tmp_path / "sd3"), long_prompts=True)


def test_the_option_is_part_of_the_record():
    options = freectl.edit(picture(), "a cat", "sdedit", steps=2, long_prompts=True).record["settings"]
    assert options["long_prompts"] is True
    assert goes_together(options | {"long_prompts": False})
    assert not goes_together(options)  # in a batch shorter texts would be filled up
