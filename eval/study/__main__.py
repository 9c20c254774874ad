"""`python -m eval.study`: see `eval.study.command`."""

from eval.command import guarded_app
from eval.study.command import app

if __name__ == "__main__":
    guarded_app(app)
