"""Balance: sample one prompt plainly and balanced with the bundled model, watch it, and compare the two."""

from __future__ import annotations

import atexit
import logging

import streamlit as st

from shared import layout, notices, state
from vico_lens import plot
from vico_lens.cli.pair import verdict_text
from vico_lens.errors import VicoLensError
from vico_lens.live import Desk, Job, Pair, PairSettings, Ticket, check_settings, run_pair
from vico_lens.live.pair import LONGEST, MOST_STEPS, found_concepts

JOB, PAIR = "balance_job", "balance_pair"
OWN = "as in the preset"


@st.cache_resource
def desk() -> Desk:
    """The one place of this server where the model runs."""
    made = Desk()
    atexit.register(made.close)
    return made


def work(settings: PairSettings, ticket: Ticket) -> Pair:
    """Load the model if this is the first run, then run both."""
    from vico_lens.cli.sampling import quiet_pipeline

    ticket.report("loading the model", 0, 1)
    return run_pair(desk().keep("pipeline", quiet_pipeline), settings, ticket)


def asked() -> PairSettings | None:
    """Draw the form; the settings when the button was pressed."""
    from vico_lens.balancing import objectives, presets

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
        pressed = st.form_submit_button("Run both", type="primary", disabled=running())
    own = None if objective == OWN else objective
    return PairSettings(prompt, tuple(concepts), preset, own, strength, int(steps), int(seed)) if pressed else None


def running() -> bool:
    """Whether this page has a run under way."""
    return JOB in st.session_state and st.session_state[JOB].running


def start(settings: PairSettings) -> None:
    """Begin a run, or say why not."""
    with notices.guarded("This cannot be run."):
        check_settings(settings)
        job = desk().start(lambda ticket: work(settings, ticket))
        if job is None:
            notices.empty("Somebody else's run is under way on this server.", "One runs at a time; try again in a minute.")
            return
        st.session_state[JOB] = job
        st.rerun()


@st.fragment(run_every=0.4)
def watch(job: Job[Pair]) -> None:
    """Show how far the run is; ends with a run of the whole page."""
    progress = job.watch()
    if not job.running:
        st.rerun()
    st.progress(progress.share, f"{progress.what.capitalize()}" if job.wanted else "Stopping after this step")
    st.button("Cancel", on_click=job.cancel, disabled=not job.wanted)


def ended(job: Job[Pair]) -> None:
    """Keep what a finished run left, or say how it ended."""
    if job.state == "done":
        st.session_state[PAIR] = job.result
        del st.session_state[JOB]
    elif job.state == "cancelled":
        notices.empty("The run was cancelled.", "Nothing of it was kept; the model is ready for the next one.")
    elif isinstance(job.error, VicoLensError):
        notices.error("The run failed.", job.error)
    else:
        logging.getLogger(__name__).error("a run failed", exc_info=job.error)
        notices.error("The run failed unexpectedly.", f"{type(job.error).__name__}; the server's log says more.")


@st.fragment
def compare(pair: Pair) -> None:
    """Show both runs beside each other, what was done, and whether it did harm."""
    names = pair.settings.concepts
    look = {"colours": state.colours(names), "theme": state.theme()}
    layout.prompt_line(pair.settings.prompt, names, look["colours"])
    layout.facts({"plain": verdict_text(pair.plain.verdict), "balanced": verdict_text(pair.balanced.verdict)})
    method = st.segmented_control(
        "Influence by",
        list(pair.plain.influence),
        default=next(iter(pair.plain.influence)),
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
    from vico_lens.balancing.report import report_table

    change, cost = float(pair.report.distance), float(pair.report.cost_ratio)
    layout.lead(
        "What it cost, and whether it did harm",
        f"{cost:.2g} times the denoiser's work of the plain run; the videos differ by {change:.3f} of full range. A large "
        "drop of sharpness, or more flicker or clipped values, is what too strong an update looks like.",
    )
    st.dataframe(report_table(pair.report).round(4).rename_axis("measure").reset_index(), hide_index=True)
    st.download_button("Log as CSV", pair.log.to_dataframe().to_csv().encode(), "balance.csv", "text/csv")


layout.heading(
    "Balance: give every word its share", "One prompt and one seed, sampled plainly and balanced by the bundled model."
)
settings = asked()
if settings is not None and not running():
    start(settings)
elif running():
    watch(st.session_state[JOB])
elif JOB in st.session_state:
    ended(st.session_state[JOB])
if PAIR in st.session_state:
    compare(st.session_state[PAIR])
elif not running():
    notices.empty("Nothing has been run yet.", "“Run both” takes about ten seconds on a laptop; it can be cancelled at any step.")
