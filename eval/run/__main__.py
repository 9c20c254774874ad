"""`python -m eval.run`: see `eval.run.command`."""

from eval.command import guarded
from eval.run.command import run

if __name__ == "__main__":
    guarded(run)
