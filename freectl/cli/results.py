"""`freectl compare`: finished pictures as one labelled sheet."""

from pathlib import Path
from typing import Annotated

import typer

from freectl.cli import panels
from freectl.cli.app import examples
from freectl.cli.options import Overwrite
from freectl.cli.output import Format, FormatOption, emit, warn

EXAMPLES = examples(
    "freectl compare fox.png out_pnp.png out_sdedit.png",
    "freectl compare out_seed0.png out_seed1.png out_seed2.png --columns 3 --output seeds.png",
)


def compare(
    results: Annotated[
        list[str],
        typer.Argument(
            help="Pictures; those that freectl wrote are labelled with what tells them apart.", metavar="RESULT..."
        ),
    ],
    output: Annotated[Path, panels.result(help="Where the sheet goes: .png .jpg .jpeg .webp.")] = Path("compare.png"),
    columns: Annotated[int | None, panels.result(help="Pictures a row.  [default: up to 4]", min=1, max=64)] = None,
    overwrite: Overwrite = False,
    form: FormatOption = Format.human,
) -> None:
    """Finished pictures side by side, labelled; to run methods side by side: `freectl edit --method A,B --compare`."""
    from freectl.files.outputs import Outputs, digest
    from freectl.files.pictures import compare_sheet
    from freectl.tasks.results import labelled

    outputs = Outputs([("RESULT", path) for path in results], overwrite=overwrite)
    target = outputs.check(output)
    cells, records = labelled(results)
    sheet = compare_sheet(cells, columns)
    written = outputs.save(sheet, target, identity=digest("sheet", *(part for cell in cells for part in cell)))
    warn(outputs.take_notes(), form)
    pictures = [
        {"picture": path, "label": label, "record": record}
        for path, (label, _), record in zip(results, cells, records, strict=True)
    ]
    emit({"output": str(written), "pictures": pictures}, f"{written}  ({len(cells)} pictures)", form)
