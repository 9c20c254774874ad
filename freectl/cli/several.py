"""`freectl edit` of one picture at several seeds, and of all pictures in a folder; the model is loaded once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from freectl.cli.job import Job
from freectl.cli.output import Format, emit, quiet_libraries, warn, written_text
from freectl.errors import FreectlError, InputError

MOST_SEEDS = 64


def parse_seeds(seed: str | None, count: int | None) -> list[str]:
    """The seeds that `--seed` and `--seeds` ask for, as texts that the options check; none = the default one.

    Raises:
        InputError: a list together with a count, a seed twice, or too many.
    """
    given = [text.strip() for text in seed.split(",")] if seed is not None else []
    if count is None:
        twice = next((text for text in given if given.count(text) > 1), None)
        if twice is not None or len(given) > MOST_SEEDS:
            found = f"{twice} twice" if twice is not None else f"{len(given)} seeds"
            raise InputError("--seed", found, f"up to {MOST_SEEDS} different ones, such as 1,2,3")
        return given
    if len(given) > 1:
        raise InputError("--seeds", f"{count} with --seed {seed}", "one of the two, or --seed with the first one")
    first = given[0] if given else "0"
    if not first.isdecimal():
        return given  # the options say what is wrong with it
    return [str(int(first) + index) for index in range(count)]


def run_seeds(image: Any, options: Any, overrides: dict[str, Any], seeds: Sequence[int], job: Job) -> None:
    """Run an edit at every seed; results go to NAME_seedN, and all of them to the sheet NAME_seeds.

    A method that draws nothing from the seed is run once.

    Raises:
        InputError: an input cannot be used; nothing has been loaded then.
        FreectlError: the model cannot be loaded, or a file cannot be written.
    """
    from freectl.files import record as records
    from freectl.tasks import edit as editing
    from freectl.tasks import hints

    places = {seed: job.place(f"seed{seed}") for seed in seeds}
    job.place("seeds", ".png")
    checked = editing.plan(image, options.model_copy(update={"seed": seeds[0]}), overrides)
    if checked.source is not None:
        quiet_libraries()
    results, cells, last = [], [("input", checked.picture.image)], ""
    for seed, target in places.items():
        plan = replace(checked, options=options.model_copy(update={"seed": seed}))
        result = editing.run(plan, cache=job.cache, progress=job.progress)
        record = job.write(result.image, result.record, target, checked.picture.image)
        if not result.seeded and seed == seeds[0]:
            record["warnings"] = list(dict.fromkeys([*record["warnings"], hints.unseeded(checked.method)]))
        warn([text for text in record["warnings"] if text not in checked.warnings or seed == seeds[0]], job.form)
        results.append(record)
        cells.append((f"seed {seed}", result.image))
        last = written_text(record, result.image.size)
        if not result.seeded:
            break
        emit(None, last, job.form if job.form is Format.human else Format.quiet)
    sheet = job.write_sheet(cells, job.target, "seeds")
    warn(job.outputs.take_notes(), job.form)
    summary = {"output": str(sheet), **records.head(options), "seed": [one["seed"] for one in results]}
    emit(summary | {"results": results}, f"{sheet}  ({len(results)} of {len(seeds)} seeds side by side)", job.form)


def pictures_in(folder: Path, option: str = "--image") -> list[Path]:
    """The pictures directly in a folder, by name.

    Raises:
        InputError: none, or a folder that cannot be read.
    """
    from PIL import Image

    from freectl.files.paths import is_file
    from freectl.files.pictures import FORMATS

    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and is_file(path))
    except OSError as error:
        raise InputError(option, f"'{folder}', unreadable ({error.strerror or error})", "a folder") from error
    if not found:
        raise InputError(option, f"'{folder}', a folder without pictures", "a picture, or a folder of pictures")
    return found


def output_folder(given: Path | None, source: Path) -> Path:
    """Where results of a folder go; made where it is missing.

    Raises:
        InputError: a picture's name, the folder of the inputs, or one that cannot be made.
    """
    from freectl.files.paths import is_folder, made_folder, same
    from freectl.files.record import WRITABLE

    folder = given or Path("out")
    if folder.suffix.lower() in WRITABLE and not is_folder(folder):
        raise InputError("--output", f"'{folder}', one picture, for a folder of pictures", "a folder, such as out")
    if same(folder, source):
        raise InputError("--output", f"'{folder}', the folder of the inputs itself", "another folder")
    return made_folder(folder, "--output")


def run_folder(sources: Sequence[Path], options: Any, overrides: dict[str, Any], folder: Path, job: Job) -> None:
    """Edit every picture of a folder; a picture that cannot be edited does not stop the others.

    Raises:
        InputError: no picture can be used. FreectlError: some could not be edited.
    """
    from freectl.files import record as records
    from freectl.tasks import edit as editing

    stems = [path.stem for path in sources]
    results: list[dict[str, Any]] = []
    errors: list[FreectlError] = []
    quiet = False
    for path in sources:
        target = folder / f"{path.stem if stems.count(path.stem) == 1 else path.name}.png"
        try:
            checked = editing.plan(str(path), options, overrides)
            if checked.source is not None and not quiet:
                quiet_libraries()
                quiet = True
            result = editing.run(checked, cache=job.cache, progress=job.progress)
            record = job.write(result.image, result.record, target, checked.picture.image)
        except FreectlError as error:
            errors.append(error)
            results.append({"output": None, "settings": {"image": str(path)}, "error": str(error)})
            warn([f"{path} failed: {error}"], Format.quiet)  # on stderr: it is no result
            if isinstance(error, InputError) and error.option != "--image":
                raise  # wrong for all pictures alike
            continue
        warn(record["warnings"], job.form)
        results.append(record)
        emit(None, written_text(record, result.image.size), job.form if job.form is Format.human else Format.quiet)
    if len(errors) == len(sources):
        raise errors[0]
    done = len(sources) - len(errors)
    summary = {"output": str(folder), **records.head(options), "results": results}
    emit(summary, f"{done} of {len(sources)} pictures in {folder}", job.form)
    if errors:
        raise FreectlError(f"{len(errors)} of {len(sources)} pictures could not be edited")
