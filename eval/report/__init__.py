"""Result folders as one page, and as tables."""
