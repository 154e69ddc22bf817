"""Flow lab, Balance and Runs: what they show, what they refuse, and a run of the model from the button to the result."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from pages_support import Open, said
from streamlit.testing.v1 import AppTest

from vico_lens.attribution.lab import presets
from vico_lens.intervention.balancing import presets as balancing_presets

PROMPT = "a red circle moving right and a blue square moving up"
RUN = {"prompt": PROMPT, "seed": 1, "condition": "plain", "settings": "None", "call": "{'num_inference_steps': 2}", "model": ""}


@pytest.fixture
def fresh_runner():
    """No job of another test is under way, and none of this one stays."""
    from shared.runner import the_runner

    the_runner().close()
    yield the_runner()
    the_runner().close()


def press(app: AppTest, label: str) -> AppTest:
    """Click the one button with this label and run the page."""
    (button,) = [button for button in app.button if button.label == label]
    return button.click().run()


# Flow lab


def predict(app: AppTest, value: float) -> AppTest:
    app.number_input[0].set_value(value)
    return press(app, "Fix the prediction")


@pytest.mark.parametrize("exercise", list(presets))
def test_every_exercise_opens_and_can_be_solved(open_page: Open, exercise: str) -> None:
    app = open_page("flow_lab", exercise=presets[exercise].title)
    assert not app.exception and app.selectbox(key="exercise").value == exercise
    assert "Nothing has been sent yet" in said(app) and presets[exercise].lesson not in said(app)
    app = press(predict(app, 0.05), "Push the rest")
    assert not app.exception and app.info[0].value.startswith("Shown: the maximum flow is")
    assert "The minimum cut is" in said(app) and presets[exercise].lesson in said(app)


def test_solving_by_hand_takes_a_step_back_and_is_congratulated(open_page: Open) -> None:
    app = predict(open_page("flow_lab", exercise=presets["take_back"].title), 0.9)
    app = press(app, "Push this path")
    (path,) = [box for box in app.selectbox if box.label == "2. Push along a path"]
    assert len(path.options) == 1 and path.options[0].endswith("(0.4, takes back)")
    assert "The chosen path can carry 0.4 more" in said(app)
    app = press(app, "Push this path")
    assert app.success[0].value == "Solved with 2 paths: the maximum flow is 0.9, as you predicted."
    assert "a1 → a2 (0.4), b2 → b3 (0.5), 0.9 in all" in said(app)
    assert len(app.table) == 1
    app = press(app, "Undo")
    assert not app.success and "0.5 reaches the video so far" in said(app)
    assert "Nothing has been sent yet" in said(press(app, "Start over"))


def test_the_concept_to_push_and_a_wrong_link(open_page: Open) -> None:
    app = open_page("flow_lab", exercise="<script>alert(1)</script>")
    assert not app.exception and app.selectbox(key="exercise").value == next(iter(presets))
    app = open_page("flow_lab", exercise=presets["many_or_wide"].title, push="blue square")
    app = press(predict(app, 0.9), "Push the rest")
    assert app.success[0].value == "Shown: the maximum flow is 0.9, as you predicted."


# Balance


def test_balance_opens_with_what_it_can_do_and_nothing_run(open_page: Open, fresh_runner) -> None:
    app = open_page("balance")
    assert not app.exception and "Nothing has been run yet" in said(app)
    assert list(app.selectbox(key="preset").options) == list(balancing_presets)
    assert app.multiselect[0].value == ["blue cross", "purple circle"]
    assert app.text_input(key="prompt").set_value(PROMPT).run().multiselect[0].value == ["red circle", "blue square"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a red dragon moving right and a blue square moving up", "has never seen &#x27;dragon&#x27;"),
        ("a red circle moving right", "two concepts or more"),
        ("<script>alert(1)</script>", "&lt;script&gt;"),
        ("", "prompt is empty"),
    ],
)
def test_a_prompt_that_cannot_be_run_is_refused_in_words(open_page: Open, fresh_runner, prompt: str, message: str) -> None:
    app = open_page("balance")
    app = press(app.text_input(key="prompt").set_value(prompt).run(), "Run both")
    assert not app.exception and not fresh_runner.busy
    assert "This cannot be run." in said(app) and message in said(app) and "<script>alert" not in said(app)


def test_a_run_goes_on_while_the_page_answers_and_ends_with_both_videos(open_page: Open, fresh_runner) -> None:
    app = open_page("balance", prompt=PROMPT)
    steps = next(box for box in app.number_input if box.label == "Steps")
    steps.set_value(4)
    app = press(app, "Run both")
    assert not app.exception and [button.label for button in app.button if button.label == "Cancel"]
    assert next(button for button in app.button if button.label == "Run both").disabled
    assert app.session_state["balance_job"].wait(240) == "done"
    app.run()
    text, pair = said(app), app.session_state["balance_pair"]
    assert not app.exception and "What was done" in text and "whether it did harm" in text
    assert "of the influence before" in text and ">red circle</bdi>" in text
    assert len(app.dataframe) == 1 and "sharpness" in app.dataframe[0].value["measure"].tolist()
    method = next(group for group in app.button_group if group.label == "Influence by")
    assert len(method.options) >= 2 and not method.set_value(list(pair.plain.influence)[1]).run().exception


def test_cancel_stops_the_run_and_leaves_the_desk_free(open_page: Open, fresh_runner) -> None:
    app = press(open_page("balance", prompt=PROMPT), "Run both")
    job = app.session_state["balance_job"]
    app = press(app, "Cancel")
    assert job.wait(120) == "cancelled" and not fresh_runner.busy
    app.run()
    assert not app.exception and "The run was cancelled." in said(app)


def test_one_run_at_a_time(open_page: Open, fresh_runner) -> None:
    gate = threading.Event()
    fresh_runner.start(lambda progress: gate.wait(60))
    app = press(open_page("balance", prompt=PROMPT), "Run both")
    gate.set()
    assert not app.exception and "Another run is under way on this server." in said(app)


# Runs


def records(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir()
    for number, row in enumerate(rows):
        (folder / f"{number:024x}.json").write_text(json.dumps(row))
    return folder


def test_the_bundled_sweep_opens_filters_and_compares(open_page: Open) -> None:
    app = open_page("runs")
    text = said(app)
    assert not app.exception and "notice error" not in text and "All correct" in text
    everything = len(app.dataframe[0].value)
    assert everything >= 8 and {"condition", "seed", "prompt", "all_correct"} <= set(app.dataframe[0].value.columns)
    conditions = next(box for box in app.multiselect if box.label == "Conditions")
    app = conditions.set_value(["plain"]).run()
    assert 0 < len(app.dataframe[0].value) < everything and set(app.dataframe[0].value["condition"]) == {"plain"}
    words = next(box for box in app.text_input if box.label == "Prompts that hold")
    app = words.set_value("no such word").run()
    assert not app.exception and "No run is left." in said(app)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "expected finished runs"),
        ("package", "JSON without condition, prompt, seed"),
        ("list", "JSON without everything"),
        ("broken", "expected the record of a finished run"),
        ("../../etc", "lies outside the folders"),
        ("absent", "there is nothing"),
        ("file.json", "got the file"),
    ],
)
def test_what_is_no_sweep(open_page: Open, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    records(tmp_path / "package", [{"name": "left-pad", "version": "1.0.0"}])
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "a.json").write_text("[1, 2]")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.json").write_text('{"prompt": ')
    (tmp_path / "file.json").write_text("{}")
    app = open_page("runs", root=tmp_path, sweep=name)
    assert not app.exception
    assert "This sweep cannot be read." in said(app) and message in said(app)


def test_foreign_records_are_shown_as_text_and_not_run(open_page: Open, tmp_path: Path, fresh_runner) -> None:
    evil = RUN | {"prompt": "<script>alert(1)</script>", "condition": "**bold** ](x)", "all_correct": True}
    folder = records(tmp_path / "sweep", [evil, RUN | {"model": "/models/wan", "all_correct": False}])
    (folder / f"{0:024x}.npz").write_bytes(b"no zip at all")
    app = open_page("runs", root=tmp_path, sweep="sweep")
    assert not app.exception and "<script>alert" not in said(app)
    assert "The clip of this run cannot be shown." in said(app)
    app = press(app, "Trace this run and open it")
    assert "This run cannot be made again here." in said(app) and not fresh_runner.busy
    app = next(box for box in app.selectbox if box.label == "Run").select_index(1).run()
    app = press(app, "Trace this run and open it")
    assert "only runs of the bundled model" in said(app) and not fresh_runner.busy


def test_a_run_is_traced_again_and_opens_in_the_overview(open_page: Open, tmp_path: Path, fresh_runner) -> None:
    folder = records(tmp_path / "sweep", [RUN])
    np.savez_compressed(folder / f"{0:024x}.npz", rgb=np.zeros((8, 32, 32, 3), np.uint8))
    app = press(open_page("runs", root=tmp_path, sweep="sweep"), "Trace this run and open it")
    assert app.session_state["runs_job"].wait(240) == "done"
    app.run()
    assert not app.exception and "is traced and open now" in said(app)
    trace = Path(app.session_state["trace_name"])
    assert (trace / "zarr.json").is_file() and trace.parent.name.startswith("vico-lens-")
    app.switch_page("views/overview.py").run()
    assert not app.exception and ">red circle</bdi>" in said(app)
