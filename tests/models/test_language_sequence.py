"""Places of words in what language models read, against what the text encoder is given."""

from typing import Any

import pytest
import torch
from dit_toys import TOYS
from toy import _byte_alphabet
from transformers import Qwen2Tokenizer

from freectl.errors import InputError
from freectl.methods.p2p.align import align
from freectl.models.engine import Engine
from freectl.models.language_sequence import language_sequence

TEXT = "a Dog, a red dog"
WHOLE = [("d", "o"), ("do", "g"), ("r", "e"), ("re", "d"), ("Ġ", "dog"), ("Ġ", "red")]


def tokenizer(side: str = "right") -> Qwen2Tokenizer:
    """Letters, and some words with and without the space in front of them."""
    entries = [*_byte_alphabet(), "<|endoftext|>", *("".join(pair) for pair in WHOLE)]
    return Qwen2Tokenizer(vocab={entry: i for i, entry in enumerate(entries)}, merges=WHOLE, padding_side=side)


def read_by(engine: Engine, text: str) -> list[int]:
    """Numbers of the tokens that the text encoder is given."""
    seen: list[Any] = []
    handle = engine.pipe.text_encoder.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given), with_kwargs=True
    )
    try:
        engine.encode_prompt([text])
    finally:
        handle.remove()
    return seen[0]["input_ids"][0].tolist()


def test_what_is_read_is_what_the_encoder_is_given(toys, tmp_path, monkeypatch):
    """With padding behind or in front, and with the beginning of a template dropped."""
    made = {name: Engine(toys[name].ours) for name in ("klein", "flux2")}
    made["qwen-image"] = Engine(TOYS["qwen-image"].wrap(TOYS["qwen-image"].build(tmp_path)))
    for name, engine in made.items():
        own = getattr(engine.pipe.tokenizer, "tokenizer", engine.pipe.tokenizer)
        monkeypatch.setattr(
            engine.text, "length", 300, raising=False
        )  # dev's template is long where letters are tokens
        for side in ("right", "left") if name != "qwen-image" else ("right",):
            monkeypatch.setattr(own, "padding_side", side)
            (sequence,) = engine.text.sequences
            whole, front = read_by(engine, TEXT), sequence.front(TEXT)
            ids = sequence.ids(TEXT)
            assert whole[sequence.dropped + front :][: len(ids)] == ids, (name, side)
            assert (front > 0) == (side == "left")
            embedded = whole[sequence.dropped :]
            letters = own.convert_ids_to_tokens([embedded[place] for place in engine.token_positions(TEXT, "dog")])
            assert "".join(letters) == "Dogdog", (name, side)


def test_words_are_whole_and_spans_leave_no_token_out():
    made = language_sequence(tokenizer(), 40, "<a dog:\n{}>".format)
    names = made.tokenizer.convert_ids_to_tokens(made.ids("dogma dog  red x"))
    spans = made.word_spans("dogma dog  red x")
    assert [place for span in spans for place in span] == list(range(made.start, len(names) - 1))
    assert [names[place] for place in made.positions("dogma dog  red x", "dog")] == ["Ġdog"]
    assert [names[place] for place in spans[2]] == ["Ġ", "Ġred"]
    with pytest.raises(InputError, match="--concept: found 'cat', which is not in 'a dog'; allowed: words of: a dog"):
        made.positions("a dog", "cat")


@pytest.mark.parametrize("texts", [("a dog", "a red dog"), ("a dog", "a red")])
def test_padding_in_front_moves_an_alignment_with_its_tokens(texts):
    behind, front = (language_sequence(tokenizer(side), 12, "<{}>".format, filled=True) for side in ("right", "left"))
    plain, moved = (align(one, [texts[0]], [texts[1]], "auto", "red=2") for one in (behind, front))
    lengths = [len(behind.ids(text)) for text in texts]
    starts = [front.front(text) for text in texts]
    assert starts == [12 - length for length in lengths]
    for i in range(lengths[0]):
        for j in range(lengths[1]):
            assert moved.matrix[0, starts[0] + i, starts[1] + j] == plain.matrix[0, i, j]
    for name in ("shared", "factors"):
        assert torch.equal(getattr(moved, name)[0, starts[1] :], getattr(plain, name)[0, : lengths[1]])
