"""``vico-lens demo``: the whole story on one prompt: traced, attributed, balanced, judged and reported."""

from __future__ import annotations

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from vico_lens.cli.files import check_output, staged
from vico_lens.cli.options import AsJson, Overwrite
from vico_lens.cli.output import decoded, emit, note, plain, to_json
from vico_lens.errors import ModelError
from vico_lens.runs.request import Request
from vico_lens.runs.single_run import Run, run_once, shares_text, verdict_text

__all__ = ["OUTPUTS", "demo"]

OUTPUTS = ("report.html", "trace.zarr", "before.mp4", "after.mp4", "summary.json")
OTHER_METHODS = ("cross_attention", "subgraph_flow")


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("demo-output"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Trace, attribute and balance one prompt with the bundled model; writes report.html, trace.zarr, two videos and
    summary.json.
    """
    import vico_lens as vl

    check_output(out, overwrite=overwrite, holds=OUTPUTS)
    story, reliability = _packaged("demo.json"), _packaged("reliability.json")
    request = Request(story["prompt"], seed=story["seed"], call=story.get("call", {}), threads=story["threads"])
    method = story["method"]
    start = time.perf_counter()
    note(f'"{request.prompt}", seed {request.seed}')
    pipe = request.load()
    with staged(out, overwrite=overwrite, holds=OUTPUTS, rescue=("before.mp4", "after.mp4")) as folder:
        folder.mkdir()

        def sampled(name: str, label: str, **settings: Any) -> Run:
            def keep(video: Any) -> None:
                vl.plot.save_mp4(video, folder / name)

            return run_once(request, pipe, label=label, method=method, keep=keep, **settings)

        before = sampled("before.mp4", "plain, traced", to=folder / "trace.zarr")
        note(f"plain:    {shares_text(before.dominance)}; {verdict_text(before.verdict)}")
        after = sampled("after.mp4", "balanced, traced", balance=story.get("balance", {}))
        note(f"balanced: {shares_text(after.dominance)}; {verdict_text(after.verdict)}")
        _report(folder / "report.html", request, before, after, method, reliability)
        summary = {
            "prompt": request.prompt,
            "seed": request.seed,
            "method": method,
            "concepts": [concept.name for concept in before.concepts],
            "before": before.summary(),
            "after": after.summary(),
            "balance": story.get("balance", {}),
            "reliability": reliability,
            "versions": decoded(before.tree.attrs.get("versions")),
            "seconds": round(time.perf_counter() - start, 1),
            "files": list(OUTPUTS),
        }
        (folder / "summary.json").write_text(to_json(summary) + "\n", encoding="utf-8")
    emit(summary, _found(before, after, summary["seconds"], out), as_json=as_json)


def _packaged(name: str) -> Any:
    """Read a JSON file of the tiny world: the demo's prompt and settings, or how often such prompts come out right."""
    place = files("vico_lens") / "tinyworld" / name
    if not place.is_file():
        raise ModelError(f"this installation lacks vico_lens/tinyworld/{name}: install vico-lens again, or clone the repository.")
    return json.loads(place.read_text(encoding="utf-8"))


def _report(path: Path, request: Request, before: Run, after: Run, method: str, reliability: Any) -> None:
    """Attribute the plain run by other methods and by exact flow too, and write everything on one page."""
    import vico_lens as vl
    from vico_lens.report import Outcome, build_report
    from vico_lens.store.reading import temporal_matrix
    from vico_lens.tinyworld import parse_prompt

    tree, concepts = before.tree, before.concepts
    step = int(tree.coords["step"].values[tree.sizes["step"] // 2])
    build_report(
        path,
        prompt=request.prompt,
        before=Outcome(before.video, before.influence, before.dominance, before.verdict),
        after=Outcome(after.video, after.influence, after.dominance, after.verdict),
        log=after.log,
        temporal=temporal_matrix(tree, step=step),
        methods={name: vl.attribute(tree, name, concepts) for name in OTHER_METHODS},
        comparison=vl.compare(tree, [method, *OTHER_METHODS], concepts=concepts),
        flow=vl.attribute(tree, "max_flow", concepts, sink="frame", steps=step),
        graph=vl.AttentionGraph.from_trace(tree, step=step),
        reliability=reliability["rows"],
        objects=parse_prompt(request.prompt).objects,
        provenance=plain(tree.attrs),
        command="vico-lens demo --out demo-output",
        method=method,
    )


def _found(before: Run, after: Run, seconds: float, out: Path) -> str:
    """The last line: what was found, and where to look."""
    first, second = before.summary(), after.summary()
    lead, weak = first["dominant"], first["weakest"]
    return (
        f"{lead} drove the plain video with {100 * first['share'][lead]:.0f} % of the influence, {weak} had "
        f"{100 * first['share'][weak]:.0f} % (judge: {verdict_text(before.verdict)}); balanced, {weak} has "
        f"{100 * second['share'][weak]:.0f} % (judge: {verdict_text(after.verdict)}). {seconds:.0f} s. Open {out / 'report.html'}"
    )
