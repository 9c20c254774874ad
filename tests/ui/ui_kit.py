"""The edit that the page's tests make."""

from pathlib import Path

FOX = Path(__file__).resolve().parents[2] / "prompts" / "images" / "fox.png"
PROMPT = "a fluent cat on a blue background"
