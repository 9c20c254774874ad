"""`python -m eval.ceiling`: see `eval.showcase.ceiling`."""

from eval.command import guarded_app
from eval.showcase.ceiling import app

if __name__ == "__main__":
    guarded_app(app)
