"""The checker of the built site finds broken links, missing anchors and requests to other servers, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tools.check_site import problems

CLEAN = """<html><head><link rel="stylesheet" href="style.css"><link rel="canonical" href="https://example.org/"></head>
<body><h1 id="top">x</h1><a href="sub/b.html#there">b</a><a href="https://example.org">out</a><a href="#top">up</a>
<img src="data:image/png;base64,AA"><script src="s.js"></script></body></html>"""


def build(folder: Path, page: str) -> list[str]:
    (folder / "sub").mkdir()
    (folder / "a.html").write_text(page)
    (folder / "sub" / "b.html").write_text('<a href="../a.html">a</a><p id="there"></p>')
    (folder / "style.css").write_text("p { color: red }")
    (folder / "s.js").write_text("")
    return list(problems(folder))


def test_a_clean_site_has_no_problem(tmp_path: Path) -> None:
    assert build(tmp_path, CLEAN) == []


def test_every_kind_of_problem_is_found(tmp_path: Path) -> None:
    wrong = CLEAN.replace("#there", "#nowhere").replace('src="s.js"', 'src="https://cdn.example.org/s.js"')
    wrong = wrong.replace('href="#top"', 'href="missing.html"').replace("data:image/png;base64,AA", "//cdn.example.org/x.png")
    found = build(tmp_path, wrong)
    assert [line.split(": ", 1)[1] for line in found] == [
        "fetches //cdn.example.org/x.png from another server",
        "fetches https://cdn.example.org/s.js from another server",
        "sub/b.html#nowhere leads to no anchor",
        "missing.html leads to no file of the site",
    ]


def test_styles_are_read_too_and_an_empty_folder_is_no_site(tmp_path: Path) -> None:
    assert "got no page" in next(problems(tmp_path))
    assert build(tmp_path, CLEAN) == []
    (tmp_path / "style.css").write_text("@import url('https://fonts.example.org/a.css');")
    assert [line.partition(": ")[2] for line in problems(tmp_path)] == [
        "fetches https://fonts.example.org/a.css from another server"
    ]
