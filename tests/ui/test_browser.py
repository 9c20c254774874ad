"""The page in a real browser: what people do in it, at two widths, without a script error or a request elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ui_kit import FOX, PROMPT

from freectl.files.record import read_record

PATIENCE = 100_000
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("address")]


NAME = """e => (e.getAttribute('aria-label') || [...(e.labels || [])].map(one => one.innerText).join(' ')
  || e.innerText || e.title || '').trim()"""
UNNAMED = f"""() => [...document.querySelectorAll('button, input, textarea, select, [role=slider]')]
  .filter(e => e.offsetParent !== null && !e.disabled && e.type !== 'file' && !({NAME})(e)).map(e => e.outerHTML)"""


class Tab:
    """A browser tab with the page, and what went wrong in it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.errors = page, list[str]()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda text: self.errors.append(text.text) if text.type == "error" else None)
        page.on("request", lambda asked: self._asked(asked.url, address))
        page.goto(address)
        page.get_by_role("button", name="Edit", exact=True).wait_for()

    def _asked(self, url: str, address: str) -> None:
        if url.startswith("http") and not url.startswith(address.rstrip("/")):
            self.errors.append(f"asks for {url}")

    def fill(self, steps: int = 4, prompt: str = PROMPT, method: str = "") -> None:
        """Upload the fox, say what it becomes."""
        self.upload("#edit-image", FOX)
        self.page.locator("#edit-image img").wait_for()
        self.page.locator("#edit-prompt textarea").fill(prompt)
        self.number("#edit-steps", steps)
        if method:
            self.choose("#edit-method", method)

    def upload(self, place: str, path: Path) -> None:
        """A file into an upload."""
        self.page.locator(f"{place} input[type=file]").set_input_files(str(path))

    def number(self, place: str, value: int) -> None:
        """A slider's number."""
        field = self.page.locator(f"{place} input[type=number]")
        field.fill(str(value))
        field.press("Tab")

    def choose(self, place: str, name: str) -> None:
        """An entry of a dropdown, by keyboard."""
        field = self.page.locator(f"{place} input")
        field.click()
        field.fill(name)
        field.press("Enter")

    def press(self, name: str) -> None:
        """A button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def status(self, text: str) -> str:
        """Wait until the status has these words; all of it."""
        place = self.page.locator("#status").get_by_text(text)
        place.wait_for()
        return place.inner_text()

    def downloaded(self, folder: Path) -> Path:
        """The chosen result as the browser downloads it."""
        with self.page.expect_download() as waiting:
            self.page.get_by_text("Download with record").click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def width(self) -> int:
        """Of the whole page, in pixels."""
        return self.page.evaluate("document.documentElement.scrollWidth")


@pytest.fixture(scope="module")
def context(chromium: Any) -> Iterator[Any]:
    """What all tabs share, as in a user's browser: the files of the page are fetched once."""
    opened = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield opened
    opened.close()


@pytest.fixture
def tab(context: Any, address: str) -> Iterator[Tab]:
    opened = Tab(context.new_page(), address)
    yield opened
    opened.page.close()
    assert opened.errors == []


def test_edit_download_and_restore(tab: Tab, tmp_path: Path) -> None:
    tab.fill(steps=6, method="sdedit")
    for name in ("Settings of the method", "Strength in a row"):  # looking at a form changes nothing in it
        tab.page.get_by_role("button", name=name).click()
    tab.page.locator("#edit-guidance_scale textarea, #edit-guidance_scale input").wait_for()
    tab.press("Edit")
    tab.status("done:")
    tab.page.locator("#history img").wait_for()
    path = tab.downloaded(tmp_path)
    record = read_record(path)
    assert (record["prompt"], record["steps"], record["method"]) == (PROMPT, 6, "sdedit")
    assert record["settings"]["image"] == "fox.png"
    assert Image.open(path).size == Image.open(FOX).size
    command = tab.page.locator("#command textarea").input_value()
    assert command == f"freectl edit --image fox.png --method sdedit --prompt '{PROMPT}' --steps 6"

    tab.page.reload()
    tab.page.get_by_role("button", name="Edit", exact=True).wait_for()
    tab.upload("#restore", path)
    tab.status("upload fox.png again")
    assert tab.page.locator("#edit-prompt textarea").input_value() == PROMPT
    assert tab.page.locator("#edit-steps input[type=number]").input_value() == "6"
    assert tab.page.locator("#edit-method input").input_value() == "sdedit"


def test_keyboard_names_errors_and_mask(tab: Tab) -> None:
    tab.page.get_by_role("heading", name="freectl").click()
    reached = []
    for _ in range(26):
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate(f"({NAME})(document.activeElement)"))
    wanted = ["Edit", "Control", "Compare", "Bases", "Benchmark results", "Drop an image", "Prompt", "Source prompt",
              "Method", "Preset", "number input for Steps", "Seed", "See inside", "Edit", "Cancel", "Settings of the",
              "Strength in a row", "Where"]  # fmt: skip
    places = iter(reached)
    assert all(any(one.startswith(name) for one in places) for name in wanted), reached
    for name in ("Control", "Compare", "Bases", "Benchmark results", "Edit"):
        tab.page.get_by_role("tab", name=name, exact=True).click()
        tab.page.get_by_role("tab", name=name, exact=True, selected=True).wait_for()
        assert tab.page.evaluate(UNNAMED) == []

    tab.press("Edit")
    tab.status("--image: found no picture")
    tab.fill()
    tab.page.locator("#edit-prompt textarea").fill("a fluent dragon")
    tab.page.locator("#edit-unknown mark").get_by_text("dragon", exact=True).wait_for()
    assert tab.page.locator("#edit-unknown mark").count() == 1

    tab.page.get_by_role("button", name="Where: keep, mask").click()
    canvas = tab.page.locator("#painter canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.page.mouse.move(*middle)
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] + 12, middle[1] + 4, steps=4)
    tab.page.mouse.up()
    tab.press("Painted: stays as it is")
    tab.status("keep: what is painted is taken")
    tab.page.locator("#edit-keep img").wait_for()


def test_a_run_shows_its_estimate_and_is_cancelled(tab: Tab) -> None:
    tab.fill(steps=900, method="sdedit")  # long: a preview goes with the end of its run, and browsers may be slow
    tab.press("Edit")
    tab.status(" of 675, about")
    tab.page.locator("#preview img").wait_for()
    tab.press("Cancel")
    tab.status("cancelled; nothing was changed")
    assert tab.page.locator("#history img").count() == 0
    tab.number("#edit-steps", 2)
    tab.press("Edit")
    tab.status("done:")


def test_two_tabs_do_not_mix(tab: Tab, context: Any, address: str) -> None:
    other = Tab(context.new_page(), address)
    other.page.set_viewport_size({"width": 400, "height": 800})
    tab.fill(steps=2, method="sdedit")
    tab.page.locator("#edit-inside").get_by_role("checkbox").check()
    other.fill(steps=3, method="sdedit")
    tab.press("Edit")
    other.press("Edit")
    for one, steps in ((tab, 2), (other, 3)):
        one.status("done:")
        one.page.locator("#history img").wait_for()
        assert one.page.locator("#history img").count() == 1
        wanted = f"--steps {steps}" + (" --explain inside" if one is tab else "")
        assert one.page.locator("#command textarea").input_value().endswith(wanted)
        if one is tab:
            one.page.locator("#inside img").wait_for()
        assert one.page.locator("#inside img").count() == (one is tab)
        assert one.width() <= one.page.viewport_size["width"]
    theirs = other.page.locator("#history img").get_attribute("src")
    assert theirs != tab.page.locator("#history img").get_attribute("src")
    assert other.errors == []
    other.page.close()


def test_compare_bases_and_report(tab: Tab, tmp_path: Path) -> None:
    tab.page.get_by_role("tab", name="Compare").click()
    tab.upload("#compare-image", FOX)
    tab.page.locator("#compare-image img").wait_for()
    tab.page.locator("#compare-prompt textarea").fill(PROMPT)
    tab.page.get_by_label("freecontrol", exact=True).uncheck()
    tab.number("#compare-steps", 3)
    tab.page.get_by_role("button", name="Concept, guidance, settings").click()
    tab.page.locator("#compare-settings textarea").fill("strength=0.5")
    tab.press("Compare")
    tab.page.locator("#status").get_by_text("done", exact=True).wait_for()
    tab.page.locator("#sheet img").wait_for()
    tab.page.locator("#history img").nth(1).wait_for()  # pictures come one by one
    assert tab.page.locator("#history img").count() == 2
    assert "--set strength=0.5" in tab.page.locator("#command textarea").input_value()

    report = tmp_path / "report.html"
    report.write_text("<h1>Results</h1><script>try { parent.document.title = 'taken' } catch (e) {}</script>")
    tab.page.get_by_role("tab", name="Benchmark results").click()
    tab.upload("#report-file", report)
    tab.page.frame_locator("#report iframe").get_by_role("heading", name="Results").wait_for()
    assert tab.page.title() == "freectl"
