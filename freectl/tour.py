"""`python -m freectl.tour`: the command `freectl tour`."""

import sys

from freectl.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "tour")
    main()
