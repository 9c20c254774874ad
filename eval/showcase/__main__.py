"""`python -m eval.showcase`: see `eval.showcase.command`."""

from eval.command import guarded_app
from eval.showcase.command import app

if __name__ == "__main__":
    guarded_app(app)
