"""Settings that only the data knows."""

from typing import Any

from gan_baselines.config import RunConfig
from gan_baselines.data.folders import Source
from gan_baselines.data.marks import words_of
from gan_baselines.data.pictures import read_labels
from gan_baselines.errors import InputError


def completed(config: RunConfig, sources: dict[str, Source]) -> RunConfig:
    """`config` with what only the data knows, where the settings leave it open: classes, words, labels."""
    model, found = config.model, dict[str, Any]()
    fields = type(model).model_fields
    marks = next((source.marks for source in sources.values() if source.marks), ())
    if "classes" in fields and not model.classes:
        found["classes"] = tuple(sorted(set(marks)))
    if "words" in fields and not model.words:
        found["words"] = tuple(sorted({word for text in marks for word in words_of(text)}))
        found["length"] = max(len(words_of(text)) for text in marks)
    if "labels" in fields:
        highest, path = max((int(read_labels(path).max()), path) for path in sources["A"].files)
        if model.labels and highest >= model.labels:
            found_text = f"the label {highest} in '{path}'"
            raise InputError("--data", found_text, f"0 to {model.labels - 1}, or another model.labels")
        found["labels"] = model.labels or 1 + highest
        found["instances"] = "I" in sources
    return config.model_copy(update={"model": type(model).model_validate({**model.model_dump(), **found})})
