"""The tab Bases: which semantic bases there are, and what their first components see."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from freectl.errors import FreectlError
from freectl.semantics import lookup
from freectl.ui.form import Updates
from freectl.ui.jobs import Job, one_line
from freectl.ui.panel import HIDDEN, SEEN, said
from freectl.ui.running import CANCELLED, ENGINE
from freectl.ui.session import Sessions
from freectl.ui.watch import Progress, Watch

HEADER = ["key", "concept", "family", "seeds", "features"]
ABOUT = "Directions in which FreeControl compares structure. An edit with a concept makes those it needs by itself."


def stored() -> list[list[Any]]:
    """A line for each set of bases in the cache."""
    return [[one.key[:12], *(one.metadata.get(name) for name in HEADER[1:])] for one in lookup.cached_entries()]


class BasesTab:
    """A table of the cache's bases, a drawing of one of them, and a form of `freectl bases build`."""

    def __init__(self, sessions: Sessions, models: list[str]) -> None:
        self.sessions = sessions
        gr.Markdown(ABOUT)
        self.table = gr.Dataframe(headers=HEADER, interactive=False, label="In the cache", wrap=True)
        with gr.Row():
            self.name = gr.Textbox(
                lookup.EMBEDDED, label="Bases", info="Key or concept of the table, or mini.", min_width=150
            )
            self.model = gr.Dropdown(models, value=models[0], label="Model", allow_custom_value=True, min_width=150)
            self.layer = gr.Number(1, label="Layer", precision=0, min_width=100)
        with gr.Row():
            self.draw = gr.Button("Show components", variant="primary")
            self.refresh = gr.Button("Refresh the table")
        with gr.Accordion("Build", open=False):
            with gr.Row():
                self.concept = gr.Textbox(
                    label="Concept",
                    info="What the seed pictures show; empty: general.",
                    placeholder="cat",
                    min_width=150,
                )
                self.seeds = gr.Slider(2, 100, value=20, step=1, label="Seed pictures", min_width=150)
                self.features = gr.Dropdown(
                    ["sampling", "inversion"], value="sampling", label="Features", min_width=150,
                    info="Taken while sampling (published code) or by inverting the pictures (paper).",
                )  # fmt: skip
            with gr.Row():
                self.build = gr.Button("Build", min_width=120)
                self.cancel = gr.Button("Cancel", min_width=120)
        self.status = gr.HTML("", elem_id="bases-status", padding=False)
        self.picture = gr.Image(
            label="Seed pictures and components", visible=HIDDEN, format="png", elem_id="bases-sheet", buttons=SEEN
        )
        private: dict[str, Any] = {"api_visibility": "private"}
        self.refresh.click(stored, None, self.table, queue=False, **private)
        engine: dict[str, Any] = {"concurrency_id": ENGINE, "concurrency_limit": 1, "show_progress": "minimal"}
        self.build.click(
            self._build, [self.concept, self.model, self.seeds, self.features], [self.status, self.table],
            **engine, **private,
        )  # fmt: skip
        self.cancel.click(self._cancel, None, None, queue=False, **private)
        self.draw.click(
            self._draw,
            [self.name, self.model, self.layer],
            [self.status, self.picture],
            **engine,
            **private,
        )

    def _draw(self, name: str, model: str, layer: int, request: gr.Request) -> Iterator[Updates]:
        yield from self._told(
            lambda: drawing(name.strip(), model, int(layer or 1)),
            lambda made: {self.status: said("done"), self.picture: gr.update(value=made, visible=True)},
            request,
        )

    def _build(self, concept: str, model: str, seeds: int, features: str, request: gr.Request) -> Iterator[Updates]:
        yield from self._told(
            lambda: building(concept.strip() or None, model, int(seeds), features),
            lambda made: {self.status: said(made), self.table: stored()},
            request,
        )

    def _cancel(self, request: gr.Request) -> None:
        self.sessions.of(request.session_hash).cancel()

    def _told(
        self, ask: Callable[[], Callable[[Watch], Any]], done: Callable[[Any], Updates], request: gr.Request
    ) -> Iterator[Updates]:
        """Check, run, and tell how it goes."""
        try:
            work = ask()
        except FreectlError as error:
            yield {self.status: said(one_line(error), "error")}
            return
        job = Job(work, Watch())
        self.sessions.of(request.session_hash).watch = job.watch
        for progress in job.progress():
            yield {self.status: said(progress.text)}
        if job.error or job.cancelled:
            yield {self.status: said(job.error or CANCELLED, "error" if job.error else "note")}
            return
        yield done(job.result)


def building(concept: str | None, model: str, seeds: int, features: str) -> Callable[[Watch], str]:
    """The job that makes bases and keeps them in the cache; says what it made.

    Raises:
        InputError: no such model.
    """
    from freectl.pipelines.loading import resolve_model
    from freectl.tasks import bases as making
    from freectl.tasks import edit as editing
    from freectl.tasks.options import RunOptions

    options = RunOptions(model=model, prompt=concept or "*")
    source = resolve_model(model)

    def work(watch: Watch) -> str:
        from freectl.denoising.cost import Cost
        from freectl.files.cache import Cache
        from freectl.models.engine import Engine

        watch.tell(Progress("opening the model", 0, 1, None))
        pipe, _ = editing.opened(options, source)
        with watch.watching(pipe):
            engine = Engine(pipe, cache=Cache(), cost=Cost())
            made = making.build(engine, concept, None, making.NUMBERS | {"seeds": seeds, "features": features})
        found = " (already in the cache)" if engine.cost.cached["bases"] else ""
        return (
            f"{len(made)} bases of {made.metadata.get('concept')!r}, {engine.cost.row_forwards:g} row forwards{found}"
        )

    return work


def drawing(name: str, model: str, layer: int) -> Callable[[Watch], Any]:
    """The job that draws bases by name; everything that can be is checked first.

    Raises:
        InputError: no such bases, model or layer; or a file, which a page is not asked to open.
    """
    from freectl.errors import InputError
    from freectl.semantics import pictures
    from freectl.tasks import edit as editing
    from freectl.tasks.options import RunOptions

    if name.endswith(lookup.SUFFIX):
        raise InputError("bases", f"the file '{name}'", "a key or concept of the table, or mini")
    bases = lookup.load(name)
    sites = pictures.layers(bases)
    if not 1 <= layer <= len(sites):
        raise InputError("layer", str(layer), f"1 to {len(sites)}")
    options = RunOptions(model=model, prompt=name)
    from freectl.pipelines.loading import resolve_model

    source = resolve_model(model)

    def work(watch: Watch) -> Any:
        from freectl.models.engine import Engine

        watch.tell(Progress("opening the model", 0, 1, None))
        pipe, _ = editing.opened(options, source)
        with watch.watching(pipe):
            engine = Engine(pipe)
            lookup.check_usable(bases, engine, [sites[layer - 1]], (), 1, "--model")
            return pictures.component_sheet(engine, bases, sites[layer - 1])

    return work
