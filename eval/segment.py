"""`python -m eval.segment`: see `eval.scores.segment`."""

from eval.command import guarded_app
from eval.scores.segment import app

if __name__ == "__main__":
    guarded_app(app)
