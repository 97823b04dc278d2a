"""The guide is true: generated pages are fresh, links lead somewhere, commands are taken, and the site builds."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.pages import check_command, command_lines

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.docs import __main__ as generator  # noqa: E402
from scripts.docs import common, llms, reference, schemes, site, studies  # noqa: E402

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *sorted((ROOT / "results").rglob("*.md"))]
NAMES = [path.stem for path in schemes.files("scheme")]
LARGEST = 60_000  # bytes of a scheme's picture
COMMANDS = list(dict.fromkeys(line for page in DOCS for line in command_lines(page.read_text())))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def made() -> dict[Path, str]:
    return generator.pages()


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings; a repeated one has a number."""
    text = re.sub(r"^```[\s\S]*?^```$", "", page.read_text(), flags=re.M)
    found: dict[str, None] = {}
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        slug = common.slug(heading)
        number = next(n for n in range(len(found) + 1) if (f"{slug}-{n}" if n else slug) not in found)
        found[f"{slug}-{number}" if number else slug] = None
    return set(found)


def dead(page: Path, text: str) -> list[str]:
    """The local links of a page that lead to no file, no folder or no heading."""
    wrong = []
    for link in filter(common.is_local, common.links(text)):
        path, _, anchor = link.partition("#")
        target = site.target_of(page, path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


def test_generated_pages_are_fresh():
    assert generator.stale(made()) == [], "run python -m scripts.docs"


def test_a_changed_page_and_one_of_a_removed_scheme_are_stale(tmp_path):
    folder = tmp_path / "schemes"
    folder.mkdir()
    for file, text in (("fresh.md", "same"), ("old.md", "before"), ("removed.md", "x")):
        (folder / file).write_text(text)
    pages = {folder / "fresh.md": "same", folder / "old.md": "after", folder / "new.md": "x"}
    assert [page.name for page in generator.stale(pages)] == ["new.md", "old.md", "removed.md"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    assert dead(page, page.read_text()) == []


def test_llms_txt_leads_to_pages():
    index = ROOT / "docs" / "llms.txt"
    assert dead(index, index.read_text()) == []
    assert len(common.links(index.read_text())) == len(list(site.page_paths(site.navigation())))


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A b\n")
    text = "[x](#a-b) [x](a.md#a-b) [x](b.md) [x](#c) `[x](code.md)` [x](https://example.org/y)\n\n    [x](z.md)\n"
    assert dead(page, text) == ["b.md", "#c"]


def test_the_navigation_has_every_page():
    listed = list(site.page_paths(site.navigation()))
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in DOCS)


@pytest.mark.parametrize("scheme", NAMES)
def test_every_scheme_has_a_page_with_its_formula_and_picture(scheme):
    text = (ROOT / "docs" / "schemes" / f"{scheme}.md").read_text()
    formula = re.search(r"## Formula\n\n```text\n(.+?)\n```\n", text, re.S)
    picture = ROOT / "docs" / "pictures" / "schemes" / f"{scheme}.png"
    assert formula and picture.name in text
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size <= LARGEST


@pytest.mark.parametrize("kind", ["scheme", "window", "temperature", "transform"])
def test_every_option_of_a_component_has_a_meaning(kind):
    rows = [row for path in schemes.files(kind) for row in schemes.options(kind, path)]
    assert [row[0] for row in rows if not row[3]] == []


def test_every_column_of_a_row_has_a_meaning():
    assert [column[0] for column in reference.columns() if not column[3]] == []


def test_every_study_is_in_the_gallery():
    folders = {path.parent.name for path in studies.STUDIES.glob("*/README.md")}
    assert set(studies.listed()) == folders


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_taken(line, monkeypatch):
    monkeypatch.setenv("POSEXP_CORPORA", "corpora")  # which experiments read
    check_command(line)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# A\n\n<!-- x -->\n\n    code\n\nOne [two](b.md) `three`. Four.\n", "One two three."),
        ("# A\n\nPress et al. 2021 say 1.5\nor so? Yes.\n", "Press et al. 2021 say 1.5 or so?"),
        ("# A\n\n- only\n- a list\n", ""),
    ],
)
def test_the_first_sentence_of_a_page(text, sentence):
    assert llms.first_sentence(text) == sentence


def test_links_of_the_site():
    page = ROOT / "docs" / "reference" / "rows.md"
    assert site.place_of(ROOT / "README.md") == Path("readme.md")
    moved = common.moved_links("[a](b.md#c) [d](#e) `[f](g)` [h](https://i.org)", ROOT / "results", ROOT / "docs")
    assert moved == "[a](../results/b.md#c) [d](#e) `[f](g)` [h](https://i.org)"
    assert site.place_of(site.target_of(page, "../../results/studies/demo")) == Path("results/studies/demo/README.md")


@pytest.mark.slow
def test_the_site_builds_without_warnings_or_network(tmp_path):
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text())
    site.stage(tmp_path / "build" / "guide-src")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    built = tmp_path / "build" / "guide"
    for page in site.page_paths(site.navigation()):
        html = (built / page).with_suffix(".html").read_text()
        title = (ROOT / "docs" / page).read_text().partition("\n")[0].removeprefix("# ")
        assert re.search(rf"<h1[^>]*>{re.escape(title)}", html), page
        assert not re.search(r"<(?:script|img|link)\b[^>]*(?:src|href)=\"?(?:https?:)?//", html), page
        assert not re.search(r"<p>[^<]*\n(?:-|\d+\.) ", html), f"{page}: a list needs an empty line before it"
    for folder in ("demo", "papers"):
        assert (built / "results" / "studies" / folder / "index.html").is_file()
