"""One folder of eight tiny pictures in every layout."""

import json
from pathlib import Path

import pytest
from gan_toy import picture, write
from PIL import Image


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder in all layouts: trainA.., train/A.., pictures/, sheets/train, scenes.jsonl. Not to be changed."""
    root = tmp_path_factory.mktemp("gan_data")
    for split in ("train", "test"):
        for side in "AB":
            write(root / f"{split}{side}", invert=side == "B")
            write(root / split / side, invert=side == "B")
    write(root / "pictures")
    (root / "sheets").mkdir()
    lines = []
    for index in range(8):
        sheet = Image.new("RGB", (64, 32))
        sheet.paste(picture(index), (0, 0))
        sheet.paste(picture(index, invert=True), (32, 0))
        sheet.save(root / "sheets" / f"{index}.png")
        lines += [json.dumps({"picture": f"train/{s}/{index}.png", "object": f"thing{index % 4}"}) for s in "AB"]
    (root / "scenes.jsonl").write_text("\n".join(lines))
    _marked(root)
    return root


def _marked(root: Path) -> None:
    """The same pictures with label maps and instances, captions, and in folders of two classes."""
    for split in ("train", "test"):
        write(root / "labelled" / split / "pictures")
        for index in range(8):
            for name, values in (("labels", 2), ("instances", 1)):
                labels = Image.new("L", (32, 32))
                labels.paste(values - index % values, (index, 4, index + 12, 24))
                folder = root / "labelled" / split / name
                folder.mkdir(exist_ok=True)
                labels.save(folder / f"{index}.png")
            folder = root / "classed" / split / ("even" if index % 2 == 0 else "odd")
            folder.mkdir(parents=True, exist_ok=True)
            picture(index).save(folder / f"{index}.png")
        write(root / "captioned" / split)
        lines = [json.dumps({"file_name": f"{i}.png", "text": f"disc {'a' if i % 2 else 'b'}"}) for i in range(8)]
        (root / "captioned" / split / "metadata.jsonl").write_text("\n".join(lines))
