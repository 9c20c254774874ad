"""Runs beside the page: the same bits as without it, progress that adds up, an end in any loop, one at a time."""

import threading
from itertools import pairwise
from typing import Any

import pytest
from ui_kit import FOX, PROMPT

from freectl.errors import FreectlError
from freectl.tasks import edit as editing
from freectl.ui import asking
from freectl.ui.jobs import Job, edit_work, explained_work
from freectl.ui.watch import Progress, Watch


def plan(**values: Any) -> Any:
    form = {"image": str(FOX), "prompt": PROMPT, "method": "sdedit", "preset": "default", "steps": 6, **values}
    return asking.edits(form)[0].plan


def test_a_watched_run_gives_the_same_bits_and_previews_that_come_near_them() -> None:
    wanted = editing.run(plan())
    watch = Watch()
    watch.seldom = 0.0
    job = Job(edit_work(plan()), watch)
    news = list(job.progress())
    assert job.error == ""
    assert job.result.image.tobytes() == wanted.image.tobytes()
    previews = [one.preview for one in news if one.preview is not None]
    assert previews
    assert {one.size for one in previews} == {wanted.image.size}


def test_the_last_estimate_is_the_result() -> None:
    """Behind the last step nothing is left of the noise: x = a x0 with a = 1 to rounding, for either."""
    import numpy as np

    seen: list[Any] = []
    made = editing.run(plan(), on_step=lambda pipe, *_: seen.append(pipe.clean_latents) or {})
    pipe, _ = editing.opened(plan().options, plan().source)
    from freectl.ui.watch import decoded

    assert len(seen) == round(0.75 * 6)
    last, first = (np.asarray(decoded(pipe, one), dtype=float) for one in (seen[-1], seen[0]))
    wanted = np.asarray(made.image, dtype=float)
    assert np.abs(last - wanted).mean() < 4
    assert np.abs(last - wanted).mean() < 0.5 * np.abs(first - wanted).mean()


def test_progress_counts_every_loop_to_its_end() -> None:
    watch = Watch()
    told: list[Progress] = []
    watch.tell = told.append  # type: ignore[method-assign]
    pipe, _ = editing.opened(plan().options, plan().source)
    with watch.watching(pipe):
        editing.run(plan(method="pnp", source_prompt="a fluent fox"), cache=False)
    assert list(dict.fromkeys(one.label for one in told)) == ["inverting", "editing"]
    for label in ("inverting", "editing"):
        counts = [one.done for one in told if one.label == label]
        assert counts == list(range(told[-1].total + 1))
        lefts = [one.left for one in told if one.label == label and one.left is not None]
        assert lefts[-1] == 0
    assert "progress_bar" not in vars(pipe)


@pytest.mark.parametrize("label", ["inverting", "editing"])
def test_a_cancelled_run_ends_in_that_loop_and_leaves_the_model_as_it_was(label: str) -> None:
    given = plan(method="pnp", source_prompt="a fluent fox")
    wanted = editing.run(given, cache=False)
    watch = Watch()
    tell = watch.tell

    def stop(progress: Progress) -> None:
        if progress.label == label and progress.done == 2:
            watch.cancel()
        tell(progress)

    watch.tell = stop  # type: ignore[method-assign]

    def work(watched: Watch) -> Any:
        pipe, _ = editing.opened(given.options, given.source)
        with watched.watching(pipe):
            return editing.run(given, cache=False)

    job = Job(work, watch)
    seen = list(job.progress())
    assert (job.cancelled, job.result, job.error) == (True, None, "")
    assert seen[-1].label in (label, "inverting", "cancelling")
    assert editing.run(given, cache=False).image.tobytes() == wanted.image.tobytes()


STYLED = {"style_way": "gatys", "style_evaluations": 8}


@pytest.mark.parametrize(
    ("values", "total", "last"),
    [
        ({"method": "style-transfer", "appearance_image": str(FOX), "settings": STYLED}, 8, 3),
        ({"method": "style-transfer", "appearance_image": str(FOX)}, 1, 0),
        ({"method": "gan", "settings": {"gan_weights": "pix2pix-noto-fluent"}}, 1, 0),
        ({"method": "gan", "settings": {"gan_weights": "pix2pix-noto-fluent"}}, 1, 1),
    ],
)
def test_a_run_without_a_pipeline_is_told_and_cancelled_in_its_loop_too(
    values: dict[str, Any], total: int, last: int
) -> None:
    given = plan(**values)
    told: list[Progress] = []

    def watched(cancelled_at: int | None) -> Job:
        watch = Watch()
        tell = watch.tell

        def stop(progress: Progress) -> None:
            told.append(progress)
            if progress.label == "editing" and progress.done == cancelled_at:
                watch.cancel()
            tell(progress)

        watch.tell = stop  # type: ignore[method-assign]
        job = Job(edit_work(given), watch)
        list(job.progress())
        return job

    whole = watched(None)
    assert whole.error == ""
    assert [(one.done, one.total) for one in told if one.label == "editing"] == [(n, total) for n in range(total + 1)]
    assert whole.result.image.tobytes() == editing.run(given).image.tobytes()
    told.clear()
    ended = watched(last)
    assert (ended.cancelled, ended.result, ended.error) == (True, None, "")
    assert told[-1].done == last
    assert "progress_bar" not in vars(given.method)


def test_a_run_that_has_no_inside_is_refused_in_one_line() -> None:
    job = Job(explained_work(plan(method="gan", settings={"gan_weights": "pix2pix-noto-fluent"})), Watch())
    assert list(job.progress()) == []
    assert job.error.startswith("--explain: found --method gan")


def test_a_cancelled_run_says_so_itself_once_and_nothing_behind() -> None:
    """An answer of the button's own might be shown behind the run's last word, and stay."""
    ending = threading.Event()

    def slow(watch: Watch) -> None:
        watch.tell(Progress("on", 1, 2, 3.0))
        watch.cancel()
        ending.wait(1.5)  # a step that takes longer than the page waits for news
        watch.tell(Progress("on", 2, 2, 0.0))

    job = Job(slow, Watch())
    assert [one.text for one in job.progress()] == ["cancelling"]
    assert job.cancelled


def test_errors_are_one_line_and_a_listener_who_leaves_ends_the_run() -> None:
    def fails(watch: Watch) -> None:
        raise FreectlError("a model\nthat is missing")

    job = Job(fails, Watch())
    assert list(job.progress()) == []
    assert job.error == "a model that is missing"

    ended = threading.Event()

    def endless(watch: Watch) -> None:
        try:
            while True:
                watch.tell(Progress("on", 0, 1, None))
                ended.wait(0.01)
        finally:
            ended.set()

    listening = Job(endless, Watch()).progress()
    next(listening)
    listening.close()
    assert ended.wait(10)


def test_runs_take_turns() -> None:
    spans: list[tuple[str, int]] = []
    go = threading.Barrier(2)

    def work(number: int) -> Any:
        def run(watch: Watch) -> None:
            spans.append(("in", number))
            threading.Event().wait(0.05)
            spans.append(("out", number))

        return run

    def start(number: int) -> None:
        go.wait()
        list(Job(work(number), Watch()).progress())

    threads = [threading.Thread(target=start, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(two == ("out", one[1]) for one, two in pairwise(spans) if one[0] == "in")
    assert len(spans) == 4
