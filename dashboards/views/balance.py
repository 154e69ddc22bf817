"""Balance: sample one prompt plainly and balanced with the bundled model, watch it, and compare the two."""

from __future__ import annotations

import streamlit as st

from shared import layout, notices, runner, state
from vico_lens import plot
from vico_lens.attribution.facade import DEFAULT_METHOD
from vico_lens.runs.pair import LONGEST, MOST_STEPS, Pair, PairSettings, check_settings, found_concepts, run_pair
from vico_lens.runs.single_run import verdict_text

JOB, PAIR = "balance_job", "balance_pair"
OWN = "as in the preset"


def asked() -> PairSettings | None:
    """Draw the form; the settings when the button was pressed."""
    from vico_lens.intervention.balancing import objectives, presets

    demo = PairSettings.of_demo()
    prompt = st.text_input("Prompt", demo.prompt, max_chars=LONGEST, key="prompt", bind="query-params")
    found = found_concepts(prompt)
    state.valid_choice("preset", list(presets))
    state.valid_choice("objective", [OWN, *objectives])
    with st.form("balance"):
        concepts = st.multiselect(
            "Concepts", found, found, accept_new_options=True, key=f"concepts of {prompt}", help="Found by rules; type others."
        )
        first, second, third, fourth, fifth = st.columns([3, 3, 3, 2, 2])
        preset = first.selectbox("Preset", list(presets), key="preset", bind="query-params")
        objective = second.selectbox("Objective", [OWN, *objectives], key="objective", bind="query-params")
        strength = third.number_input("Strength", 0.1, 20.0, demo.strength, 0.1, help="1 is the preset's own size of an update.")
        steps = fourth.number_input("Steps", 1, MOST_STEPS, demo.steps)
        seed = fifth.number_input("Seed", 0, 2**31 - 1, demo.seed)
        pressed = st.form_submit_button("Run both", type="primary", disabled=runner.running(JOB))
    own = None if objective == OWN else objective
    return PairSettings(prompt, tuple(concepts), preset, own, strength, int(steps), int(seed)) if pressed else None


@st.fragment
def compare(pair: Pair) -> None:
    """Show both runs beside each other, what was done, and whether it did harm."""
    names = pair.settings.concepts
    look = {"colours": state.colours(names), "theme": state.theme()}
    layout.prompt_line(pair.settings.prompt, names, look["colours"])
    layout.facts({"plain": verdict_text(pair.plain.verdict), "balanced": verdict_text(pair.balanced.verdict)})
    methods = sorted(pair.plain.influence, key=lambda name: name != DEFAULT_METHOD)  # the same default as on every page
    method = st.segmented_control(
        "Influence by",
        methods,
        default=methods[0],
        required=True,
        format_func=lambda name: name.replace("_", " "),
        key="balance_method",
    )
    before, after = pair.plain.influence[method], pair.balanced.influence[method]
    layout.draw(plot.side_by_side(before, after, (pair.plain.video, pair.balanced.video), **look), key="balance_maps")
    layout.draw(plot.before_after(before, after, **look), key="balance_shares")
    layout.lead("What was done", "Every update of the latents, in order.")
    if pair.log.sizes["update"]:
        layout.draw(plot.balancing(pair.log, **look), key="balance_log")
    harm(pair)


def harm(pair: Pair) -> None:
    """Show the do-no-harm report and offer the log."""
    from vico_lens.intervention.balancing.report import report_table

    change, cost = float(pair.report.distance), float(pair.report.cost_ratio)
    layout.lead(
        "What it cost, and whether it did harm",
        f"{cost:.2g} times the denoiser's work of the plain run; the videos differ by {change:.3f} of full range. A large "
        "drop of sharpness, or more flicker or clipped values, is what too strong an update looks like. Shares in this table are "
        "those of the steps that were looked at, each before its update: not those above, which are of the whole run.",
    )
    st.dataframe(report_table(pair.report).round(4).rename_axis("measure").reset_index(), hide_index=True)
    st.download_button("Log as CSV", pair.log.to_dataframe().to_csv().encode(), "balance.csv", "text/csv")


layout.heading(
    "Balance: give every word its share", "One prompt and one seed, sampled plainly and balanced by the bundled model."
)
settings = asked()
if runner.running(JOB):
    runner.watch(JOB)
elif settings is not None:
    with notices.guarded("This cannot be run."):
        check_settings(settings)
        runner.begin(JOB, lambda pipe, progress: run_pair(pipe, settings, progress))
elif (pair := runner.finished(JOB)) is not None:
    st.session_state[PAIR] = pair
if PAIR in st.session_state:
    compare(st.session_state[PAIR])
elif not runner.running(JOB):
    notices.empty("Nothing has been run yet.", "“Run both” takes about ten seconds on a laptop; it can be cancelled at any step.")
