"""The data of the trained baselines' runs: one folder a task, made from scenes of the embedded world, once.

paired, unpaired: two styles, split by object. labelled, captioned, classed (and single, on captioned's pictures):
scenes of the second style; sources: classed scenes of the first. answers: sketches that show no background, each test
sketch with its true answers, one a background. maps-paired, maps-unpaired: labelled's maps, a colour a class, to its
pictures; photos-paired: its pictures to such maps. labels-alone: labelled without its instances.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from eval.gans.maps import MAPS, PHOTOS, write_maps

ALONE = "labels-alone"
OF_SCENES = ("labelled", "captioned", "classed", ALONE)
SKETCH = "sketch"


def task_of(name: str, plan: dict[str, Any]) -> str:
    """What the plan names for the run, its group or its model, else the layout that the model learns."""
    from gan_baselines.config import layout_of

    model, group, *_ = plan["runs"][name]
    layout, named = layout_of(model), plan.get("tasks", {})
    found = next((named[key] for key in (name, group, model) if key in named), layout)
    if found in (MAPS, PHOTOS):
        return f"{found}-{layout}"
    return "captioned" if found == "single" else found


def make_data(out: Path, plan: dict[str, Any], tasks: set[str]) -> dict[str, Path]:
    """Folders of the `tasks`, by task; made where they are missing. One that is there is whole."""
    root, data = out / "data", plan["data"]
    painted = {task for task in tasks if task.startswith((MAPS, PHOTOS))}
    derived = painted | (tasks & {ALONE})
    for task in [*sorted((tasks - derived) | ({"labelled"} if derived else set())), *sorted(derived)]:
        if (root / task).exists():
            continue
        partial = root / f"{task}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _make(root, partial, task, data)
        partial.rename(root / task)
    return {task: root / task for task in tasks}


def _make(root: Path, partial: Path, task: str, data: dict[str, Any]) -> None:
    first, second = data["styles"]
    if task == "answers":
        _answers(partial, data)
    elif task.startswith((MAPS, PHOTOS)):
        kind, _, layout = task.partition("-")
        write_maps(root / "labelled", partial, kind, layout)
    elif task == ALONE:
        shutil.copytree(root / "labelled", partial, ignore=shutil.ignore_patterns("instances"))
    elif task == "sources":
        _arranged(root / scenes_of(task), partial, "classed", data, (first,), "single")
    elif task in OF_SCENES:
        _arranged(root / scenes_of(task), partial, task, data, (second,), "single")
    else:
        _arranged(root / scenes_of(task), partial, task, data, (first, second), "paired")


def scenes_of(task: str) -> str:
    """Where, beside a task's folder, the scenes.jsonl lies that tells its objects."""
    names = {"answers": "answers", "paired": "scenes", "unpaired": "scenes", "sources": "first"}
    return names.get(task, "drawn")


def _arranged(
    source: Path, out: Path, arranged: Any, data: dict[str, Any], styles: tuple[str, ...], layout: Any
) -> None:
    from freectl.mini.export import UNFINISHED, write_scenes
    from gan_baselines.data.scenes import from_scenes

    if not source.exists() or (source / UNFINISHED).exists():
        write_scenes(source, data["scenes"], data["seed"], styles=styles, layout=layout, size=data["size"])
    held = data["test_objects"] if arranged in ("paired", "unpaired") else None
    from_scenes(source, out, arranged, test_objects=held)


def _answers(folder: Path, data: dict[str, Any]) -> None:
    from freectl.mini.domain import BACKGROUNDS
    from freectl.mini.export import scenes
    from freectl.mini.scene import render

    side, lines = data["size"], []
    for index, scene in enumerate(scenes(data["scenes"], data["seed"] + 1, (data["styles"][1],))):
        split, name = ("test" if scene.object in data["test_objects"] else "train"), f"{index:05d}"
        places = {"A": scene.with_words(style=SKETCH), "B": scene}
        if split == "test":
            places |= {f"answers/{name}/{ground}": scene.with_words(background=ground) for ground in BACKGROUNDS}
        for place, shown in places.items():
            path = folder / split / (f"{place}.png" if "/" in place else f"{place}/{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            render(shown, side).save(path)
        lines.append(json.dumps({"picture": f"{split}/B/{name}.png", **scene.to_dict()}))
    (folder / "scenes.jsonl").write_text("\n".join(lines) + "\n")
