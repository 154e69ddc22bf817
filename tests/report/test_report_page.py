from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.attribution.dominance import dominance
from vico_lens.errors import InputError
from vico_lens.report import LIMIT, Outcome, build_report
from vico_lens.report.markup import el, json_block
from vico_lens.report.outcome import ruling
from vico_lens.report.story import Run, Story, mark_prompt
from vico_lens.report.tables import facts, flow_table
from vico_lens.testing.traces import fake_trace
from vico_lens.tinyworld import judge, parse_prompt, render

PROMPT = "a red circle moving right and a blue square moving up"
NAMES = ["red circle", "blue square"]
ROWS = [
    {"label": "two objects", "group": "plain", "successes": 112, "trials": 200},
    {"label": "two objects", "group": "balanced", "successes": 134, "trials": 200},
]


def influence(weights=(0.7, 0.3), names=NAMES, steps=4, seed=0) -> xr.DataArray:
    noise = np.random.default_rng(seed).uniform(0.8, 1.2, (len(names), steps, 8, 4, 4))
    values = noise * np.asarray(weights, float)[:, None, None, None, None]
    coords = {"concept": list(names), "step": range(steps)}
    return xr.DataArray(values, dims=("concept", "step", "frame", "y", "x"), coords=coords, attrs={"method": "subgraph_flow"})


def log() -> xr.Dataset:
    mass = np.array([[0.7, 0.3], [0.6, 0.4]])
    return xr.Dataset(
        {"loss": ("update", [0.4, 0.2]), "influence": (("update", "concept"), mass), "latent_change": ("update", [0.02, 0.02])},
        coords={"step": ("update", [0, 1]), "concept": NAMES},
    )


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text by element, and that every element is closed."""

    VOID = frozenset({"meta", "img", "input", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.text: dict[str, list[str]] = {}
        self.running: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        self.text.setdefault(inside, []).append(data)
        if inside not in ("script", "style"):
            self.running.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def said(self) -> str:
        return re.sub(r"[ \n]+", " ", "".join(self.running))


def full(path, **changes):
    clip = render(PROMPT, seed=0).frames
    wrong = clip[::-1].copy()
    arguments = {
        "prompt": PROMPT,
        "before": Outcome(wrong, influence(), verdict=judge(wrong, PROMPT)),
        "after": Outcome(clip, influence((0.52, 0.48), seed=1), verdict=judge(clip, PROMPT)),
        "log": log(),
        "temporal": fake_trace()["temporal/4x4x4"]["weights"].mean(("step", "layer", "head", "y", "x")),
        "methods": {"cross_attention": influence((0.6, 0.4), seed=2)},
        "reliability": ROWS,
        "objects": parse_prompt(PROMPT).objects,
        "provenance": {"seed": 7, "model": "tiny", "capture": '{"steps": null}', "versions": {"torch": "2.13"}},
        "command": "vico-lens demo --out demo-output",
    }
    return build_report(path, **(arguments | changes))


def least() -> Outcome:
    return Outcome(np.zeros((3, 8, 8, 3), np.uint8), influence(names=["cat"], weights=[1]).isel(step=0, drop=True))


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    return full(tmp_path_factory.mktemp("report") / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_page_is_well_formed_small_and_self_contained(text, page):
    assert len(text.encode()) < LIMIT
    for tag, attrs in page.elements:
        for name in ("src", "href", "poster", "action", "data", "srcset"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, name)
        assert not any(name.startswith("on") for name in attrs), attrs
    assert not page.all("link") and not page.all("iframe") and not page.all("base")
    style = "".join(page.text["style"])
    assert "url(" not in style and "@import" not in style
    assert sum("plotly.js v" in part for part in page.text["script"]) == 1


def test_policy_allows_no_network_and_only_the_scripts_that_are_there(text):
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1])
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    named = set(re.findall(r"'sha256-([^']+)'", policy))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert {base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts} == named and len(scripts) == 2


def test_videos_play_inside_the_file(page):
    videos = page.all("video")
    assert len(videos) == 2
    for attrs in videos:
        assert attrs["data-frames"] == "8" and {"muted", "loop", "playsinline"} <= set(attrs)
        kind, content = attrs["src"].split(",", 1)
        assert kind == "data:video/mp4;base64" and base64.b64decode(content)[4:8] == b"ftyp"
        assert attrs["poster"].startswith("data:image/webp;base64,")


def test_text_table_and_figures_show_the_numbers_of_dominance(text, page):
    share = dominance(influence())["share"].values
    after = dominance(influence((0.52, 0.48), seed=1))["share"].values
    said = page.said()
    for value in (*share, *after):
        assert f"{100 * value:.1f}\u00a0%" in said
    figures = [json.loads(block) for block in re.findall(r'<script type="application/json" id="figure-\d+">(.*?)</script>', text)]
    bars = next(f for f in figures if f["data"][0]["type"] == "bar" and f["data"][0].get("orientation") == "h")
    assert np.allclose(numbers(bars["data"][0]["x"]), share)
    assert f"takes {100 * share[0]:.0f}\u00a0% of the influence" in said
    assert all("template" not in f["layout"] and "title" not in f["layout"] for f in figures)


def numbers(values):
    """Plotly packs arrays as base64 with a dtype."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), {"f8": "<f8", "f4": "<f4"}[values["dtype"]])
    return np.asarray(values)


def test_story_is_told(page):
    said = page.said()
    for part in (
        "By the judge, balancing repairs this clip.",
        "56\u00a0% (49\u00a0to\u00a063\u00a0%) of two objects, plain",
        "To make this report again:",
        "vico-lens demo --out demo-output",
        "not proof of what caused the picture",
        "seed 7",
        "torch: 2.13",
    ):
        assert part in said, part


def test_judges_verdict_is_shown_object_by_object(page):
    cells = " ".join(page.text["span"])
    assert "✗\u00a0motion" in cells and "✓\u00a0colour" in cells
    assert "red circle, right" in " ".join(page.text["bdi"])


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{}} \u202e שלום עולם"


def test_foreign_text_is_escaped_everywhere(tmp_path):
    names = [EVIL, "--></style><b>"]
    data = influence(names=names)
    place = full(
        tmp_path / "evil.html",
        prompt=f"{EVIL} and --></style><b>",
        before=Outcome(
            render(PROMPT, seed=0).frames, data, verdict={"all_correct": False, "failure": EVIL, "present": [True, False]}
        ),
        after=Outcome(render(PROMPT, seed=0).frames, data),
        log=None,
        methods={EVIL: data},
        reliability=[{"label": EVIL, "group": EVIL, "successes": 1, "trials": 2}],
        objects=[{"shape": EVIL, "colour": EVIL, "motion": EVIL}],
        provenance={EVIL: EVIL, "seed": EVIL, "model": f"{{{EVIL}"},
        command=EVIL,
        method=EVIL,
    )
    text = place.read_text("utf-8")
    page = Page(text)
    assert len(page.all("script")) == len(Page(full(tmp_path / "plain.html", log=None).read_text("utf-8")).all("script"))
    assert not [attrs for attrs in page.all("img") if not attrs["src"].startswith("data:image/webp")]
    assert "<script>alert" not in text and "<img src=x" not in text
    assert EVIL.split()[0] in page.said()  # it is shown, as text
    blocks = [json.loads(part) for part in page.text["script"] if part.startswith("{")]
    assert not any(
        "<img" in label
        for block in blocks
        for trace in block.get("data", [])
        for label in trace.get("y", [])
        if isinstance(label, str)
    )


def test_right_to_left_names_stand_in_their_own_direction(tmp_path):
    place = full(
        tmp_path / "rtl.html",
        prompt="חתול ליד כלב",
        before=Outcome(render(PROMPT, seed=0).frames, influence(names=["חתול", "כלב"])),
        after=None,
        log=None,
        methods=None,
    )
    text = place.read_text("utf-8")
    assert re.search(r'<bdi dir="auto"><bdi class="concept" style="--tint:#[0-9A-F]{6}">חתול</bdi> ליד', text)


def test_least_report_has_no_empty_parts(tmp_path):
    place = build_report(tmp_path / "least.html", prompt="a cat", before=least())
    page = Page(place.read_text("utf-8"))
    headings = [part for part in page.text["h2"] if part.strip()]
    assert headings == ["Who dominates?", "Where does each concept act?", "What this does not say", "How was this made?"]
    assert "nothing to compare" in page.said() and len(page.all("video")) == 1


def test_balancing_that_fails_is_told_as_failing(tmp_path):
    clip = render(PROMPT, seed=0).frames
    right, wrong = judge(clip, PROMPT), judge(clip[::-1], PROMPT)
    for verdicts, sentence in (
        ((right, wrong), "balancing spoils this clip"),
        ((wrong, wrong), "balancing does not repair this clip"),
        ((right, right), "both clips are right"),
    ):
        before, after = (Outcome(clip, influence(), verdict=verdict) for verdict in verdicts)
        said = Page(full(tmp_path / "x.html", before=before, after=after, methods=None, log=None).read_text("utf-8")).said()
        assert sentence in said
    worse = Page(
        full(tmp_path / "x.html", after=Outcome(clip, influence((0.8, 0.2))), methods=None, log=None).read_text("utf-8")
    ).said()
    assert "less even" in worse and "; balancing takes" in worse


def test_large_videos_still_fit(tmp_path):
    slope = np.add.outer(np.linspace(0, 120, 256), np.linspace(0, 100, 320))[None, :, :, None]
    film = (slope + np.random.default_rng(0).uniform(0, 25, (16, 256, 320, 3))).astype(np.uint8)
    data = influence()
    place = full(tmp_path / "large.html", before=Outcome(film, data), after=Outcome(film, data), methods=None)
    assert place.stat().st_size < LIMIT


def test_reports_that_cannot_be_written_leave_nothing_behind(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"ending in \.html"):
        full(tmp_path / "a.txt")
    with pytest.raises(InputError, match="does not exist"):
        full(tmp_path / "no" / "a.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        full(tmp_path / "taken.html")
    with pytest.raises(InputError, match="both runs must have the concepts"):
        full(tmp_path / "a.html", after=Outcome(render(PROMPT, seed=0).frames, influence(names=["x", "y"])))
    monkeypatch.setattr("vico_lens.report.build.LIMIT", 1000)
    with pytest.raises(InputError, match="MB, the limit"):
        build_report(tmp_path / "a.html", prompt="a cat", before=least())
    assert [p.name for p in tmp_path.iterdir()] == ["taken.html"]


@given(st.text(max_size=40))
def test_any_text_stays_text(foreign):
    page = Page(el("p", foreign, title=foreign))
    assert (
        page.elements == [("p", {"title": foreign.replace("\r\n", "\n").replace("\r", "\n")})]
        or "\r" in foreign
        or "\x00" in foreign
    )
    block = json_block({"a": foreign}, "x")
    assert block.count("<") == 2 and json.loads(block[block.index(">") + 1 : block.rindex("<")])["a"] == foreign


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=6), max_size=3))
def test_marking_a_prompt_changes_no_character_of_it(prompt, names):
    marked = mark_prompt(prompt, names, dict.fromkeys(names, "#0072B2"))
    assert html.unescape(re.sub(r"<[^>]*>", "", marked)) == prompt


def test_verdicts_are_read_from_any_form():
    assert ruling(None) is None
    found = ruling({"all_correct": False, "present": {"a": True}, "attributes": [{"shape": 1}], "failure": "missing_subject"})
    assert (found.correct, found.failure, found.present, found.attributes) == (
        False,
        "missing subject",
        (True,),
        ({"shape": True},),
    )
    with pytest.raises(InputError, match="must say all_correct"):
        ruling({"failure": "x"})
    with pytest.raises(InputError, match="must say all_correct"):
        ruling("right")


def test_exact_flow_is_put_into_words():
    coords = {
        "concept": ["a", "b"],
        "saturated": (("concept", "frame"), [["sink", "sink"], ["source", "no"]]),
        "gap": (("concept", "frame"), [[0.0, 2e-12], [0.0, 0.0]]),
    }
    flow = xr.DataArray([[1.0, 1.0], [0.25, 0.5]], dims=("concept", "frame"), coords=coords, name="influence")
    page = Page(flow_table(flow))
    assert [part for part in page.text["td"] if part.strip()][:2] == ["2", "2e-12"]
    assert "At the video, where the sink is full" in page.said()
    assert "1 of 2 flows at the text" in page.said() and "1 of 2 flows inside the network" in page.said()
    assert "0.75" in page.said()


def test_provenance_is_opened_and_bounded():
    page = Page(
        facts({"capture": '{"steps": null, "kinds": ["cross"]}', "broken": "{oops", "long": "x" * 10_000, "array": np.arange(3)})
    )
    said = page.said()
    assert "steps: ; kinds: cross" in said and "{oops" in said and "10,000 characters" in said and "0, 1, 2" in said
    assert len(said) < 3000


def test_rates_are_told_for_one_kind_of_prompts(tmp_path):
    """Two conditions of one kind and half of those of another would invite a comparison that is not there."""
    rates = [
        {"label": label, "group": group, "successes": 5, "trials": 10}
        for label in ("pairs", "triples")
        for group in ("plain", "random", "balanced")
    ]
    story = Story("a red circle", Run.of(least()), None, rates)
    told = "".join(str(sentence) for sentence in story.brief())
    assert told.count("pairs") == 3
    assert "triples" not in told


def test_flow_into_each_frame_says_so():
    flow = xr.Dataset(
        {"value": ("concept", [2.0]), "gap": (("concept", "frame"), np.zeros((1, 2)))}, coords={"concept": ["red circle"]}
    )
    assert "Each frame of the video is a sink of its own." in str(flow_table(flow))
    assert "Each frame" not in str(flow_table(flow.isel(frame=0)))
