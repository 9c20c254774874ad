"""`python -m eval.report`: see `eval.report.command`."""

from eval.command import guarded
from eval.report.command import report

if __name__ == "__main__":
    guarded(report)
