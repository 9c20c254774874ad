"""Which target tokens take attention from which source tokens: by hand, and against the tokenizer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freectl.denoising.attention_maps import TextSequence
from freectl.errors import InputError
from freectl.methods.p2p.align import Alignment, align, parse_weights, refine_matrix, replace_matrix
from freectl.methods.p2p.method import P2PSettings

SOURCE = "a dog"


def test_spans_are_where_the_tokenizer_puts_the_words(toy_pipe):
    tokenizer, text = toy_pipe.tokenizer, "a red fox, running"
    ids = tokenizer(text).input_ids
    spans = TextSequence(tokenizer, 77).word_spans(text)
    for word, span in zip(text.split(), spans, strict=True):
        assert [ids[i] for i in span] == tokenizer(word).input_ids[1:-1]
    long = TextSequence(tokenizer, 77).word_spans("abcdefgh " * 20)
    assert [position for span in long for position in span] == list(range(1, 76))


def test_replace_words_of_equal_length_is_the_identity():
    assert torch.equal(replace_matrix([[1], [2, 3]], [[1], [2, 3]], 6), torch.eye(6))


def test_replace_shares_out_evenly_and_shifts_the_rest():
    matrix = replace_matrix([[1], [2]], [[1], [2, 3]], 6)
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0],
            [0, 1, 0, 0, 0, 0],
            [0, 0, 0.5, 0.5, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    assert torch.equal(matrix, expected)


def test_refine_keeps_common_tokens_and_leaves_new_ones():
    """Start, a, cat, end -> start, a, red, cat, end; padding to padding."""
    matrix, shared = refine_matrix([90, 1, 2, 91], [90, 1, 3, 2, 91], 7)
    assert shared.tolist() == [1, 1, 0, 1, 1, 1, 1]
    assert matrix.argmax(0)[shared.bool()].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(matrix.sum(0), shared)


@given(source=st.lists(st.integers(0, 3), max_size=7), target=st.lists(st.integers(0, 3), max_size=7))
def test_refine_finds_a_longest_common_subsequence(source, target):
    def longest(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + longest(a[1:], b[1:])
        return max(longest(a[1:], b), longest(a, b[1:]))

    matrix, shared = refine_matrix(source, target, 7)
    pairs = [(int(matrix[:, j].argmax()), j) for j in range(len(target)) if shared[j]]
    assert len(pairs) == longest(source, target)
    assert all(source[i] == target[j] for i, j in pairs)
    assert pairs == sorted(pairs)
    assert len({i for i, _ in pairs}) == len(pairs)


def test_auto_replaces_at_equal_word_counts(toy_pipe):
    tokenizer = toy_pipe.tokenizer
    same, longer = (align(TextSequence(tokenizer, 77), [SOURCE], [text], "auto") for text in ("a cat", "a red dog"))
    assert torch.equal(same.matrix[0], torch.eye(77))
    assert bool((same.shared == 1).all())
    new = TextSequence(tokenizer, 77).word_spans("a red dog")[1]
    assert longer.shared[0, [0, 1]].tolist() == [1, 1]
    assert (longer.shared[0] == 0).nonzero().flatten().tolist() == new
    with pytest.raises(InputError, match="2 and 3 words"):
        align(TextSequence(tokenizer, 77), [SOURCE], ["a red dog"], "replace")


def test_mix_by_hand():
    source, own = (torch.tensor(values).view(1, 1, 1, 2) for values in ([0.9, 0.1], [0.3, 0.7]))
    matrix = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    mixed = Alignment(matrix, torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 3.0]]), torch.ones(1, 2)).mix(source, own)
    assert mixed.flatten().tolist() == pytest.approx([0.2, 2.1])


def test_weights():
    assert parse_weights("") == {}
    assert parse_weights("fox=2, blue = -0.5,") == {"fox": 2.0, "blue": -0.5}
    for text in ("fox", "=2", "fox=much", "fox=11", "fox=nan"):
        with pytest.raises(ValueError, match="word=factor"):
            P2PSettings(reweight=text)


def test_weights_go_to_the_words_tokens(toy_pipe):
    factors = align(TextSequence(toy_pipe.tokenizer, 77), [SOURCE], ["a cat"], "auto", "cat=3").factors
    assert (factors[0] == 3).nonzero().flatten().tolist() == [2, 3, 4]
    assert factors.sum() == 77 + 3 * 2
    with pytest.raises(InputError, match="fox"):
        align(TextSequence(toy_pipe.tokenizer, 77), [SOURCE], ["a cat"], "auto", "fox=2")


def explained_edit(toy_pipe, source, target, **options):
    from freectl.methods.p2p.method import P2P

    return P2P().alignment(toy_pipe.tokenizer, source, target, P2PSettings(**options))


def test_explained_alignment(toy_pipe):
    """The toy tokenizer has a token a letter: fox -> f o x, cat -> c a t."""
    found = explained_edit(toy_pipe, "a fox", "a red fox", reweight="red=2", cross_words="red=0.1")
    assert found["edit"] == "refine"
    assert [one["map"] for one in found["tokens"]] == ["source", "own", "own", "own", "source", "source", "source"]
    assert [one["factor"] for one in found["tokens"]] == [1, 2, 2, 2, 1, 1, 1]
    assert [one["stop"] for one in found["tokens"]] == [0.8, 0.1, 0.1, 0.1, 0.8, 0.8, 0.8]
    assert [s["token"] for one in found["tokens"] for s in one["sources"]] == ["a</w>", "f", "o", "x</w>"]
    swapped = explained_edit(toy_pipe, "a fox", "a ox")
    assert swapped["edit"] == "replace"
    assert [[s["share"] for s in one["sources"]] for one in swapped["tokens"]] == [[1], [0.5] * 3, [0.5] * 3]


def needleman_wunsch(a: list[int], b: list[int]) -> float:
    """Best score with gap 0, match 1, mismatch -1, as the published aligner scores."""
    table = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = max(table[i - 1][j - 1] + (1 if x == y else -1), table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


@given(source=st.lists(st.integers(0, 3), max_size=7), target=st.lists(st.integers(0, 3), max_size=7))
def test_refine_scores_as_well_as_the_published_aligner(source, target):
    matrix, _ = refine_matrix(source, target, 8)
    assert matrix[: len(source), : len(target)].sum() == needleman_wunsch(source, target)


def published_replace(source: str, target: str, tokens: dict[str, int], size: int) -> dict[int, dict[int, float]]:
    """Weights of source places by target place, column by column, as the published mapper assigns them.

    Up to the last word that differs, words stand opposite words; from there on a target place has the source's map of
    the same place, as long as the source has tokens left to walk through.
    """
    pairs = list(zip(source.split(), target.split(), strict=True))
    last = max((n for n, (a, b) in enumerate(pairs, 1) if a != b), default=0)
    columns: dict[int, dict[int, float]] = {0: {0: 1.0}}
    i = j = 1
    for a, b in pairs[:last]:
        for place in range(j, j + tokens[b]):
            if tokens[a] == tokens[b]:
                columns[place] = {i + place - j: 1.0}
            else:
                columns[place] = dict.fromkeys(range(i, i + tokens[a]), 1 / tokens[b])
        i, j = i + tokens[a], j + tokens[b]
    for place in range(j, size):
        if i + place - j < size:
            columns[place] = {place: 1.0}
    return columns


WORDS = st.lists(st.sampled_from(["a", "ox", "dog", "fish"]), min_size=1, max_size=5)


@given(pairs=st.lists(st.tuples(*[st.sampled_from(["a", "ox", "dog", "fish"])] * 2), min_size=1, max_size=5))
def test_replace_in_place_is_the_published_mapper(toy_pipe, pairs):
    """The toy tokenizer has a token a letter."""
    source, target = (" ".join(words) for words in zip(*pairs, strict=True))
    got = align(TextSequence(toy_pipe.tokenizer, 77), [source], [target], "replace", rest="in-place")
    expected = torch.zeros(77, 77)
    for place, weights in published_replace(
        source, target, {w: len(w) for w in source.split() + target.split()}, 77
    ).items():
        for i, weight in weights.items():
            expected[i, place] = weight
    torch.testing.assert_close(got.matrix[0], expected)
    assert bool((got.shared == 1).all())
    if len(source) == len(target) and [*map(len, source.split())] == [*map(len, target.split())]:
        shifted = align(TextSequence(toy_pipe.tokenizer, 77), [source], [target], "replace")
        assert torch.equal(shifted.matrix, got.matrix)


@given(source=WORDS, target=WORDS)
def test_refine_in_place_keeps_the_places_behind_the_target(toy_pipe, source, target):
    texts = [" ".join(source)], [" ".join(target)]
    got, ours = (
        align(TextSequence(toy_pipe.tokenizer, 77), *texts, "refine", rest=rest) for rest in ("in-place", "shifted")
    )
    ends = [len("".join(words)) + 2 for words in (source, target)]
    behind = torch.arange(ends[1], 77)
    assert torch.equal(got.matrix[0].argmax(0)[behind], behind)
    assert torch.equal(ours.matrix[0].argmax(0)[behind], (behind + ends[0] - ends[1]).clamp(max=76))
    assert torch.equal(got.matrix.sum(1), got.shared)
    assert got.shared.sum() == ours.shared.sum()


@given(source=st.lists(st.integers(0, 3), max_size=7), target=st.lists(st.integers(0, 3), max_size=7))
def test_ties_of_the_refinement_go_as_in_the_published_aligner(source, target):
    """Walked back from the end: a target token is left out where the score allows it, else a source token, else met."""

    def best(i: int, j: int) -> float:
        return needleman_wunsch(source[:i], target[:j])

    i, j, pairs = len(source), len(target), []
    while i and j:
        if best(i, j) == best(i, j - 1):
            j -= 1
        elif best(i, j) == best(i - 1, j):
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.insert(0, (i, j))
    matrix, shared = refine_matrix(source, target, 8, "in-place")
    assert [(int(matrix[:, j].argmax()), j) for j in range(len(target)) if shared[j]] == pairs
