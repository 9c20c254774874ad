"""A study with people: its page, and the scores of its answers."""
