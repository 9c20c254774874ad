"""The report in a real browser: how it looks, scrolls and sorts."""

from pathlib import Path

from browser import browser, layout_faults, needs_chromium
from result_kit import VARIANTS


@needs_chromium
def test_report_in_a_real_browser(made: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as tab:
        for width in (1280, 400):
            tab.open(made, width)
            assert layout_faults(tab) == []
            assert tab.run("document.images.length") > 3 * len(VARIANTS)
            cells = "[...document.querySelectorAll('td:first-child')]"
            widest = tab.run(f"Math.max(...{cells}.map(c => c.getBoundingClientRect().width))")
            assert 80 < widest < width / 2  # it stays in view: the numbers must fit beside it
            assert tab.run("[...document.querySelectorAll('svg[role]')].every(s => s.getBoundingClientRect().height)")
            plots = "[...document.querySelectorAll('.plot svg[role]')]"
            assert tab.run(f"Math.max(...{plots}.map(s => s.getBoundingClientRect().right))") <= width
        assert tab.errors == []


@needs_chromium
def test_wide_tables_say_that_they_scroll_and_sort_by_their_headings(made: Path, tmp_path: Path) -> None:
    first = "document.querySelector('table.sorts')"
    names = f"[...{first}.tBodies[0].rows].map(r => r.cells[0].textContent)"
    head = f"[...{first}.tHead.rows[0].cells].find(c => c.textContent.startsWith('WHICH'))"
    with browser(tmp_path / "profile") as tab:
        for width, wide in ((2400, False), (400, True)):
            tab.open(made, width)
            box = f"{first}.closest('.box')"
            # the page measures itself once it has its width
            tab.wait(f"getComputedStyle({box}, '::before').content.includes('scrolls') === {str(wide).lower()}")
            assert tab.run(f"getComputedStyle({box}, '::after').width") == ("22px" if wide else "auto")
        tab.run(f"{box}.firstElementChild.scrollLeft = 1e6")
        tab.wait(f"getComputedStyle({box}, '::after').width === 'auto'")  # the end: nothing more on the right
        given = tab.run(names)
        assert given == list(VARIANTS)
        for which, ranked in (("IoU", given[::-1]), ("MSE", given), ("variant", sorted(given))):
            orders = []
            for _ in range(3):
                tab.run(f"{head.replace('WHICH', which)}.querySelector('button').click()")
                orders.append(tab.run(names))
            assert orders == [ranked, ranked[::-1], given]
            assert tab.run(f"{head.replace('WHICH', which)}.hasAttribute('aria-sort')") is False
        assert tab.errors == []


@needs_chromium
def test_the_browser_test_sees_what_it_looks_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><div style='width:2000px'>x</div><img alt='lost' src='data:image/png;base64,AAAA'>"
        "<script>nothing()</script>"
    )
    with browser(tmp_path / "profile") as tab:
        tab.open(bad, 400)
        assert sorted(fault[:12] for fault in layout_faults(tab)) == ["1608 px too ", "missing pict"]
        assert any("nothing" in error for error in tab.errors)
