"""`python -m freectl`: the command line."""

from freectl.cli import main

if __name__ == "__main__":
    main()
