"""`python -m eval.bases_reuse`: see `eval.showcase.bases_reuse`."""

from eval.command import guarded
from eval.showcase.bases_reuse import main

if __name__ == "__main__":
    guarded(main)
