"""`python -m eval.axes`: see `eval.report.axes`."""

from eval.command import guarded
from eval.report.axes import axes

if __name__ == "__main__":
    guarded(axes)
