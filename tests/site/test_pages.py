"""The built pages: links lead somewhere, nothing comes from elsewhere, pictures are described, solutions are folded."""

import re
from collections import defaultdict
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from gen_affect_lib.course import notebooks

LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """The links, the loaded addresses, the names of places and the pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.places, self.pictures = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.places |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if values.get(name):
                self.links.append(values[name])
                if (tag, name) in LOADS and values.get("rel") != "canonical":
                    self.loads.append(values[name])
        if tag == "img":
            self.pictures.append(values)


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_link_inside_the_site_leads_to_a_file_and_a_place_in_it(pages, site):
    broken = defaultdict(list)
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = {one.resolve(): other for one, other in pages.items()}
            place = unquote(parts.fragment)
            if not target.is_file():
                broken[path.name].append(link)
            elif place and target.resolve() in known and place not in known[target.resolve()].places:
                broken[path.name].append(link)
    assert not broken


def test_nothing_is_loaded_from_another_address(pages):
    elsewhere = {load for page in pages.values() for load in page.loads if urlsplit(load).netloc}
    assert not elsewhere


def test_every_picture_is_described(pages):
    for path, page in pages.items():
        for picture in page.pictures:
            assert picture.get("alt") is not None, (path.name, picture)
            assert picture["alt"] or path.parent.name == "playground" or picture.get("aria-hidden"), (
                path.name,
                picture,
            )


@pytest.mark.parametrize("notebook", [file.stem for file in notebooks()])
def test_a_notebook_is_a_page_with_its_pictures_and_a_download_without_solutions(notebook, pages, site):
    text = (site / f"{notebook}.html").read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in text
    assert len(pages[site / f"{notebook}.html"].pictures) >= 4
    assert "Traceback" not in text or notebook in ("03_mmdit", "04_rectified_flow")
    assert 'href="map.html' in text
    assert 'href="glossary.html#term-' in text or notebook == "00_quickstart"  # which introduces no terms
    download = (site / "_static" / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in download and "image/png" not in download


def test_solutions_and_plotting_code_are_folded(site):
    text = (site / "03_mmdit.html").read_text(encoding="utf-8")
    opening = r"<details class=\"(?:admonition )?hide above-input\">\s*<summary[^>]*>"
    folds = re.findall(opening + "(.*?)</summary>", text, re.S)
    folded = [re.sub(r"<[^>]+>", " ", fold) for fold in folds]
    assert sum("Show the solution" in fold for fold in folded) >= 5
    assert sum("Show the code" in fold for fold in folded) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_formulas_search_and_both_themes(page, address, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{address}/04_rectified_flow.html")
    page.wait_for_selector("mjx-container svg")
    assert page.locator("[data-mjx-error]").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.screenshot(path=page.pictures / f"notebook_{scheme}.png")
    page.goto(f"{address}/index.html")
    page.screenshot(path=page.pictures / f"index_{scheme}.png")
    page.goto(f"{address}/search.html?q=adaLN")
    page.wait_for_selector("#search-results ul.search li")


def test_the_cheat_sheet_fills_two_pages_of_a4_and_none_of_its_columns_overflows(page, address, site):
    import pypdf

    page.goto(f"{address}/sheet.html")
    page.wait_for_function("!!window.MathJax?.startup?.promise")
    page.evaluate("MathJax.startup.promise")
    assert page.locator("[data-mjx-error]").count() == 0
    for width, room, height, space in page.evaluate(
        """[...document.querySelectorAll('.columns')]
            .map((c) => [c.scrollWidth, c.clientWidth, c.scrollHeight, c.clientHeight])"""
    ):
        assert width <= room + 1 and height <= space + 1
    page.screenshot(path=page.pictures / "cheat_sheet.png", full_page=True)
    made = page.pictures / "cheat_sheet.pdf"
    page.pdf(path=made, prefer_css_page_size=True)
    for pdf in (made, site / "cheat_sheet.pdf"):
        sheets = pypdf.PdfReader(pdf).pages
        assert len(sheets) == 2
        assert [round(float(side)) for side in sheets[0].mediabox[2:]] == [595, 842]
