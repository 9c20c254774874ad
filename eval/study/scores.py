"""Scores of a study's answers with 95 % intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, model_validator

from eval.results.forms import check_form
from eval.scores.intervals import RESAMPLES, wilson
from freectl.errors import InputError

CAPTION = {"yes": 1.0, "somewhat": 0.5, "no": 0.0}
ALLOWED = {"real": (0, 1), "prefer": (0, 1, "same"), "caption": tuple(CAPTION)}
TITLES = {
    "real": "Taken for real (of pairs with a real picture; 50 % is chance)",
    "prefer": "Preferred (of side-by-side comparisons; a tie counts half)",
    "caption": "Caption fits (yes 1, somewhat 0.5, no 0)",
}


class Asked(BaseModel):
    """A question of the key."""

    task: Literal["real", "prefer", "caption"]
    names: list[str]
    practice: bool

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.names) != (1 if self.task == "caption" else 2) or ("real" in self.names) != (self.task == "real"):
            raise ValueError(f"{', '.join(self.names)} for a question of the kind {self.task}")
        return self


class Key(BaseModel):
    """The key file: what each question showed."""

    study: str
    questions: dict[str, Asked]


@dataclass
class Sample:
    """Values from 0 to 1, and who gave each."""

    values: list[float] = field(default_factory=list)
    people: list[int] = field(default_factory=list)

    def add(self, value: float, person: int) -> None:
        """One answer."""
        self.values.append(value)
        self.people.append(person)


def interval(sample: Sample, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean, the wider of two: Wilson's over answers, and a bootstrap over people.

    Answers of one person are not independent, so whole people are resampled where there are two or more.
    """
    low, high = wilson(float(np.mean(sample.values)), len(sample.values))
    people = sorted(set(sample.people))
    if len(people) > 1:
        values, who = np.asarray(sample.values), np.asarray(sample.people)
        sums = np.array([values[who == person].sum() for person in people])
        counts = np.array([(who == person).sum() for person in people])
        drawn = np.random.default_rng(seed).integers(0, len(people), (RESAMPLES, len(people)))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        ends = np.quantile(means, [0.025, 0.975])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return low, high


def scores_of(key: dict[str, Any], answers: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Mean, interval and number of answers by kind and method, and by pair of methods for preferences.

    Args:
        key: as `eval.study.page.page` gives it. answers: file name and contents, one a participant.

    Raises:
        InputError: a key without questions; answers of another study, to unknown questions, with values that no
            question has, or given twice.
    """
    if not isinstance(key.get("questions"), dict):
        raise InputError("KEY", "a file without questions, such as a participant's answers", "the study's .key.json")
    check_form(Key, key, "the key", "KEY")
    tables: dict[str, dict[str, Sample]] = {task: {} for task in TITLES}
    pairs: dict[tuple[str, str], Sample] = {}
    seen: dict[str, str] = {}
    for person, (file, given) in enumerate(answers):
        if given["study"] != key["study"]:
            raise InputError("ANSWERS", f"'{file}' of study {given['study']}", f"answers of study {key['study']}")
        who = str(given.get("participant", file))
        if who in seen:
            raise InputError("ANSWERS", f"'{file}' and '{seen[who]}' of one participant", "each participant once")
        seen[who] = file
        for name, answer in _checked(file, given, key["questions"]):
            question = key["questions"][name]
            if not question["practice"]:
                _count(question, answer, person, tables, pairs)
    return {
        "study": key["study"],
        "participants": len(answers),
        "tasks": {task: _described(rows) for task, rows in tables.items() if rows},
        "pairs": [{"one": a, "other": b, **_estimate(sample)} for (a, b), sample in sorted(pairs.items())],
    }


def _checked(file: str, given: dict[str, Any], questions: dict[str, Any]) -> list[tuple[str, Any]]:
    listed = given.get("answers")
    if not isinstance(listed, list):
        raise InputError("ANSWERS", f"'{file}' without answers", "what the page saved")
    found = []
    for one in listed:
        name, answer = (one.get("id"), one.get("answer")) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or name not in questions:
            raise InputError("ANSWERS", f"'{file}' with an answer to {name!r}", "questions of this study")
        allowed = ALLOWED[questions[name]["task"]]
        if isinstance(answer, bool) or answer not in allowed:
            raise InputError("ANSWERS", f"'{file}' with {answer!r} to {name}", ", ".join(map(str, allowed)))
        found.append((name, answer))
    if len(dict(found)) < len(found):
        raise InputError("ANSWERS", f"'{file}' with a question answered twice", "each question once")
    return found


def _count(
    question: dict[str, Any],
    answer: Any,
    person: int,
    tables: dict[str, dict[str, Sample]],
    pairs: dict[tuple[str, str], Sample],
) -> None:
    names, rows = question["names"], tables[question["task"]]
    if question["task"] == "caption":
        rows.setdefault(names[0], Sample()).add(CAPTION[answer], person)
    elif question["task"] == "real":
        made = 1 - names.index("real")
        rows.setdefault(names[made], Sample()).add(float(answer == made), person)
    else:
        for place, name in enumerate(names):
            rows.setdefault(name, Sample()).add(0.5 if answer == "same" else float(answer == place), person)
        one, other = sorted(names)
        value = 0.5 if answer == "same" else float(names[answer] == one)
        pairs.setdefault((one, other), Sample()).add(value, person)


def _estimate(sample: Sample) -> dict[str, Any]:
    low, high = interval(sample)
    return {"mean": float(np.mean(sample.values)), "low": low, "high": high, "answers": len(sample.values)}


def _described(rows: dict[str, Sample]) -> dict[str, Any]:
    ranked = sorted(rows.items(), key=lambda item: -float(np.mean(item[1].values)))
    return {name: _estimate(sample) for name, sample in ranked}


def markdown(found: dict[str, Any]) -> str:
    """The scores as tables."""
    lines = [f"{found['participants']} participants; 95 % intervals.", ""]
    for task, rows in found["tasks"].items():
        lines += [f"| {TITLES[task]} | % | interval | answers |", "|---|---|---|---|"]
        lines += [f"| {name} | {_row(one)} |" for name, one in rows.items()] + [""]
    if found["pairs"]:
        lines += ["| Preferred over | % | interval | answers |", "|---|---|---|---|"]
        lines += [f"| {one['one']} over {one['other']} | {_row(one)} |" for one in found["pairs"]] + [""]
    return "\n".join(lines)


def _row(one: dict[str, Any]) -> str:
    return f"{100 * one['mean']:.1f} | {100 * one['low']:.1f} to {100 * one['high']:.1f} | {one['answers']}"
