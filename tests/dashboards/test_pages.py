"""Every reading page, on every kind of trace it can meet: no exception, and the right words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pages_support import APP, Open, said

READING = ["overview", "maps", "flow", "compare"]


@pytest.mark.parametrize("page", READING)
def test_the_bundled_trace(open_page: Open, page: str) -> None:
    app = open_page(page)
    text = said(app)
    assert not app.exception
    assert "notice error" not in text
    assert ">blue cross</bdi>" in text and ">purple circle</bdi>" in text
    finding = {"overview": "of the influence", "maps": "is read most", "flow": "fill the video", "compare": "methods"}[page]
    assert finding in text.partition("</h1>")[0]


def test_the_overview_says_what_the_numbers_say(open_page: Open) -> None:
    from vico_lens.attribution.dominance import dominance
    from vico_lens.tinyworld.demonstration import demo_influence

    shares = dominance(demo_influence()["rollout"])["share"]
    text = said(open_page()).replace("\u00a0", " ")
    assert f"takes {100 * float(shares.max()):.0f} % of the influence" in text
    assert "25 denoising steps" in text and "missing subject" in text


@pytest.mark.parametrize("page", READING)
def test_one_concept(open_page: Open, one_concept: Path, page: str) -> None:
    app = open_page(page, one_concept)
    text = said(app)
    assert not app.exception and "notice error" not in text
    told = {"overview": "nothing to compare", "maps": "red circle", "flow": "red circle", "compare": "With one concept"}[page]
    assert told in text


@pytest.mark.parametrize("page", READING)
def test_without_temporal_sites(open_page: Open, without_temporal: Path, page: str) -> None:
    app = open_page(page, without_temporal)
    text = said(app)
    assert not app.exception
    if page == "maps":
        assert "no site that connects frames" in text and "no site in which places look at places" in text
    if page == "overview":
        assert "keeps no video" in text


@pytest.mark.parametrize("page", READING)
@pytest.mark.parametrize(("kind", "message"), [("foreign", "Zarr store of something else"), ("empty_folder", "is empty")])
def test_what_is_no_trace(open_page: Open, request: pytest.FixtureRequest, page: str, kind: str, message: str) -> None:
    app = open_page(page, request.getfixturevalue(kind))
    assert not app.exception
    assert "This trace cannot be opened." in said(app) and message in said(app)


def test_a_link_restores_the_view(open_page: Open, one_concept: Path) -> None:
    app = open_page("maps", one_concept, step="0", head="1", frame="2")
    assert (app.selectbox(key="step").value, app.selectbox(key="head").value, app.slider(key="frame").value) == ("0", "1", 2)
    other = open_page("maps", root=one_concept.parent, trace=one_concept.name)
    assert "red circle" in said(other) and one_concept.name in other.query_params["trace"]


def test_another_trace_by_path_and_back(open_page: Open, one_concept: Path) -> None:
    app = open_page(root=one_concept.parent)
    app.sidebar.text_input[0].input(one_concept.name)
    app.sidebar.button[0].click().run()
    assert not app.exception and "red circle" in said(app) and "purple circle" not in said(app)
    app.sidebar.selectbox[0].select("demo").run()
    assert "purple circle" in said(app)


def test_method_and_sink_can_be_chosen(open_page: Open) -> None:
    app = open_page("flow", step="8", flow_method="Max flow", sink="the whole video")
    assert not app.exception
    assert "cut at the text" in said(app).lower() and "Gap 0" in said(app)


def test_a_large_trace_is_not_computed_unasked(open_page: Open, one_concept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared import budget

    monkeypatch.setattr(budget, "plan", lambda tree, method, limit=0: budget.Plan(None, None, 7_000_000_000))
    text = said(open_page("overview", one_concept))
    assert "too large to summarise unasked" in text and "reads 7.0 GB" in text


def test_the_first_page_needs_no_torch_and_no_reading_page_a_model_library() -> None:
    code = (
        "import sys; sys.argv = ['app.py']\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(APP)!r}, default_timeout=120).run()\n"
        "assert not app.exception and 'torch' not in sys.modules\n"
        "for page in ('maps', 'flow', 'compare'):\n"
        "    assert not app.switch_page(f'views/{page}.py').run().exception\n"
        "print([name for name in ('diffusers', 'transformers', 'captum') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.strip() == "[]"
