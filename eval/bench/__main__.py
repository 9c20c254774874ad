"""`python -m eval.bench`: see `eval.bench.command`."""

from eval.bench.command import app
from eval.command import guarded_app

if __name__ == "__main__":
    guarded_app(app)
