"""Documents name files that are there, and link to them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = (ROOT, ROOT / "src/notetune", ROOT / "tests", ROOT / "bench", ROOT / "docs")


def files_named_in(path):
    """Names of Python files in backticks, and of test modules without their ending."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    modules = re.findall(r"`(test_\w+)`", text)
    return [*named, *(f"{module}.py" for module in modules)]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/design.md", "README.md"])
def test_every_file_that_is_named_exists(name):
    named = files_named_in(ROOT / name)
    assert len(named) > 5
    missing = [
        file
        for file in named
        if not any((place / file).exists() for place in PLACES)
        and not any((ROOT / "tests").rglob(Path(file).name))
    ]
    assert missing == []


def links_of(path):
    """The files that a page links to."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    return [path.parent / link for link in found if "://" not in link]


def test_every_link_leads_to_a_file():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = {page.relative_to(ROOT): links_of(page) for page in pages}
    assert len(links[Path("README.md")]) > 10
    missing = {(str(page), link.name) for page, found in links.items() for link in found
               if not link.exists()}  # fmt: skip
    assert missing == set()
