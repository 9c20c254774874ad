"""The words of the embedded world: objects, styles, backgrounds, and the captions made of them.

Every object exists in three artwork styles drawn by different people from the same code point, so one scene rendered in
two styles is an exact pair. `sketch` and `silhouette` are derived from the artwork.
"""

OBJECTS: dict[str, str] = {
    "fox": "1f98a",
    "cat": "1f431",
    "dog": "1f436",
    "panda": "1f43c",
    "frog": "1f438",
    "tiger": "1f42f",
    "lion": "1f981",
    "bear": "1f43b",
    "rabbit": "1f430",
    "pig": "1f437",
    "monkey": "1f435",
    "koala": "1f428",
    "apple": "1f34e",
    "pumpkin": "1f383",
    "burger": "1f354",
    "car": "1f697",
}
"""Object word -> Unicode code point of the emoji."""

ARTWORK: tuple[str, ...] = ("noto", "twemoji", "fluent")
DERIVED: tuple[str, ...] = ("sketch", "silhouette")
STYLES: tuple[str, ...] = ARTWORK + DERIVED

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "gray": (150, 150, 155),
    "red": (205, 50, 50),
    "orange": (250, 150, 50),
    "yellow": (250, 222, 85),
    "green": (85, 170, 90),
    "cyan": (120, 220, 225),
    "blue": (60, 100, 210),
    "purple": (140, 80, 185),
    "pink": (250, 165, 205),
}
"""Background word -> RGB, 0 to 255."""

HELD_OUT: tuple[tuple[str, str], ...] = (
    ("dog", "noto"),
    ("rabbit", "twemoji"),
    ("koala", "fluent"),
    ("tiger", "fluent"),
    ("car", "twemoji"),
)
"""(object, style) pairs, 10 % of the artwork, that the generator never sees; reported apart."""

SAME_OUTLINE: dict[tuple[str, str], str] = {("panda", "twemoji"): "bear", ("panda", "fluent"): "bear"}
"""(object, artwork) whose silhouette is, but for a grey level, that of another object of the same artwork."""

PICTURE_SIZE = 128
"""Side of a scene in pixels."""


def caption(style: str | None, object: str | None, background: str | None) -> str:
    """Caption of a scene; a word that is None is left out, as in a share of the training captions."""
    words = " ".join(word for word in (style, object or "picture") if word)
    article = "an" if words[0] in "aeiou" else "a"
    place = f" on a {background} background" if background else ""
    if background and background[0] in "aeiou":
        place = f" on an {background} background"
    return f"{article} {words}{place}"


def vocabulary() -> list[str]:
    """All words that captions and seed prompts use, each a single token of the embedded tokenizer."""
    glue = ["a", "an", "on", "of", "and", "with", "photo", "picture", "background", "emoji", ","]
    return sorted({*glue, *OBJECTS, *STYLES, *BACKGROUNDS})
