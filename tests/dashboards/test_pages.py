"""Every reading page, on every kind of trace it can meet: no exception, and the right words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages_support import APP, Open, said
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Button

import vico_lens as vl
from vico_lens.testing.traces import fake_trace
from vico_lens.tinyworld.demonstration import demo_trace

TITLES = {
    "rollout": "Rollout",
    "subgraph_flow": "Subgraph flow",
    "cross_attention": "Cross-attention",
    "widest_path": "Widest path",
}
READING = ["overview", "maps", "flow", "compare"]


@pytest.mark.parametrize("page", READING)
def test_the_bundled_trace(open_page: Open, page: str) -> None:
    app = open_page(page)
    text = said(app)
    assert not app.exception
    assert "notice error" not in text
    assert ">blue cross</bdi>" in text and ">purple circle</bdi>" in text
    titles = {"overview": "of the influence", "maps": "gets most attention", "flow": "of what reaches the video"}
    finding = titles.get(page, "methods")
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
        assert "no site that connects frames" in text and "holds no self-attention" in text
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


def finish(app: AppTest, button: Button) -> None:
    """Wait for the job that a button began; a short one has ended, and was taken over by the page, within the click's own run."""
    key = button.key.removeprefix("ask ")
    if key in app.session_state:
        assert app.session_state[key].wait(120) == "done"


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint trace whose attention over video is larger than what a page computes on by itself; 2 MB of it are over text."""
    path = tmp_path_factory.mktemp("joint") / "joint.zarr"
    fake_trace("joint", to=path, grid=(4, 16, 16), blocks=2, steps=(0, 1), form="factors", video=True)
    return path


def test_a_joint_trace_is_charged_for_what_is_read(joint: Path) -> None:
    from shared import budget

    tree = vl.open_trace(joint)
    heads, places, tokens, layers = 2, 4 * 16 * 16, 20, 2
    assert budget.step_bytes(tree, "cross_attention") == layers * heads * places * tokens * 4
    assert budget.step_bytes(tree, "rollout") == layers * heads * (places + tokens) ** 2 * 4
    assert budget.frame_bytes(tree) == layers * heads * places**2 * 4


def test_a_large_trace_opens_with_a_quick_look_and_can_be_computed_anyway(
    open_page: Open, joint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared import budget

    monkeypatch.setattr(budget.plan, "__defaults__", (4 << 20,))
    app = open_page("overview", joint)
    text = said(app).replace("\u00a0", " ")
    assert not app.exception and "A quick look, because rollout computes on much more." in text
    assert "Rollout computes on 17 MB of attention, 2 times." in text
    (button,) = [button for button in app.button if button.label == "Compute anyway"]
    app = button.click().run()
    finish(app, button)
    text = said(app.run())
    assert "quick look" not in text and "By rollout, over 2 denoising steps (0 to 1), conditional branch." in text


def test_the_maps_page_reads_attention_between_frames_only_when_asked(
    open_page: Open, joint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared import budget

    monkeypatch.setattr(budget, "UNASKED", 1 << 20)
    app = open_page("maps", joint)
    assert not app.exception and "Attention between frames computes on 17 MB of attention." in said(app)
    (button,) = [button for button in app.button if button.label == "Compute anyway"]
    app = button.click().run()
    finish(app, button)
    assert "of its temporal attention to itself" in said(app.run())


def test_the_balanced_demo_is_not_called_the_plain_run(open_page: Open) -> None:
    assert "The plain run" not in said(open_page("overview", trace="demo-balanced"))
    assert "This run shows everything that the prompt asks for." in said(open_page("overview", trace="demo-balanced"))


def test_the_maps_page_counts_the_rest_of_the_attention(open_page: Open) -> None:
    """All of the attention at one step: the words shown, other words, start and end, padding; together 100 %."""
    title, _, under = said(open_page("maps")).replace("\u00a0", " ").partition("</h1>")
    assert "Of these words" in title
    from shared.cached import open_tree
    from vico_lens.store.reading import concept_maps

    tree = open_tree(str(demo_trace()), "any")
    step = int(tree.coords["step"].values[2])
    shown = concept_maps(tree, ["blue cross", "purple circle"], step=step).mean(("frame", "y", "x")).values
    assert f"{100 * shown.max():.1f} %" in title
    rest = [float(value) for value in re.findall(r"(?:words|end|padding) (\d+\.\d) %", under.partition("</p>")[0])]
    assert len(rest) == 3 and sum(rest) + 100 * shown.sum() == pytest.approx(100, abs=0.3)


def test_the_flow_table_names_the_sinks_that_were_chosen(open_page: Open) -> None:
    notes = {"each frame": "Each frame of the video is a sink", "each place": "Each place of the video is a sink"}
    for sink, note in notes.items():
        assert note in said(open_page("flow", step="8", flow_method="Max flow", sink=sink))
    assert "The whole video is one sink" in said(open_page("flow", step="8", flow_method="Max flow", sink="the whole video"))


def test_compare_shows_the_quantities_of_vl_compare(open_page: Open, joint: Path, tmp_path: Path) -> None:
    """Agreement and shares on the page, of a small separate and a joint trace, against `vico_lens.compare`."""
    separate = tmp_path / "separate.zarr"
    fake_trace(to=separate, steps=(0, 1, 2))
    small = tmp_path / "joint.zarr"
    fake_trace("joint", to=small, steps=(0, 1, 2))
    methods = ["rollout", "subgraph_flow", "cross_attention", "widest_path"]
    for path in (separate, small):
        tree = vl.open_trace(path)
        offered = [name for name in methods if name != "subgraph_flow" or path == separate]
        table = vl.compare(tree, offered)
        app = open_page("compare", path, root=tmp_path, methods=[TITLES[name] for name in offered])
        assert not app.exception
        (figure,) = [chart for chart in app.get("plotly_chart") if chart.proto.id.endswith("agreement")]
        (drawn,) = json.loads(figure.proto.spec)["data"]
        assert [[float(cell) for cell in line] for line in drawn["text"]] == np.round(table["agreement"].values, 2).tolist()
        for name in offered:
            share = vl.dominance(vl.attribute(tree, name))["share"]
            np.testing.assert_allclose(table["share"].sel({"method": name}), share)
            for concept in share["concept"].values:
                words = f"{100 * float(share.sel(concept=concept)):.0f} % {concept}"
                assert words in said(app).replace("\u00a0", " ")


def test_the_bundled_comparison_has_the_shares_of_the_bundled_influence() -> None:
    from vico_lens.tinyworld.demonstration import METHODS, demo_comparison, demo_influence

    for name in METHODS:
        expected = vl.dominance(demo_influence()[name])["share"]
        np.testing.assert_allclose(demo_comparison()["share"].sel({"method": name}), expected, atol=1e-9)


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
