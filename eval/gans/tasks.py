"""The data of the trained baselines' runs: one folder a task, made from scenes of the embedded world, once.

paired, unpaired: two styles, split by object. labelled, captioned, classed (and single, on captioned's pictures):
scenes of the second style; sources: classed scenes of the first. answers: sketches that show no background, each test
sketch with its true answers, one a background.
"""

import json
from pathlib import Path
from typing import Any

OF_SCENES = ("labelled", "captioned", "classed")
SKETCH = "sketch"


def task_of(name: str, plan: dict[str, Any]) -> str:
    """The task of a run: the plan's, where it names one for the model, else the layout that the model trains on."""
    from gan_baselines.config import layout_of

    model = plan["runs"][name][0]
    found = plan.get("tasks", {}).get(model, layout_of(model))
    return "captioned" if found == "single" else found


def make_data(out: Path, plan: dict[str, Any], tasks: set[str]) -> dict[str, Path]:
    """Folders of the `tasks`, by task; made where they are missing."""
    data = plan["data"]
    for task in sorted(tasks):
        if (out / "data" / task).exists():
            continue
        if task == "answers":
            _answers(out / "data" / task, data)
        elif task == "sources":
            _arranged(out / "data", task, "classed", data, data["styles"][:1], "single")
        elif task in OF_SCENES:
            _arranged(out / "data", task, task, data, data["styles"][1:], "single")
        else:
            _arranged(out / "data", task, task, data, data["styles"], "paired")
    return {task: out / "data" / task for task in tasks}


def scenes_of(task: str) -> str:
    """Where, beside a task's folder, the scenes.jsonl lies that tells its objects."""
    names = {"answers": "answers", "paired": "scenes", "unpaired": "scenes", "sources": "first"}
    return names.get(task, "drawn")


def _arranged(root: Path, task: str, arranged: Any, data: dict[str, Any], styles: list[str], layout: Any) -> None:
    from freectl.mini.export import write_scenes
    from gan_baselines.data.scenes import from_scenes

    source = root / scenes_of(task)
    if not source.exists():
        write_scenes(source, data["scenes"], data["seed"], styles=tuple(styles), layout=layout)
    held = data["test_objects"] if task in ("paired", "unpaired") else None
    from_scenes(source, root / task, arranged, test_objects=held)


def _answers(folder: Path, data: dict[str, Any]) -> None:
    from freectl.mini.domain import BACKGROUNDS
    from freectl.mini.export import scenes
    from freectl.mini.scene import render

    side, lines = 64, []
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
