"""``vico-lens knockout``: the same prompt and seed, plain and with words cut out of attention."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vico_lens.cli.files import check_output, staged
from vico_lens.cli.options import (
    AsJson,
    CallOptions,
    Concepts,
    Device,
    Download,
    Guidance,
    Model,
    Overwrite,
    Prompt,
    Seed,
    Steps,
    call_of,
)
from vico_lens.cli.output import emit, note, to_json
from vico_lens.cli.trace import steps_of
from vico_lens.errors import InputError
from vico_lens.runs.request import Request
from vico_lens.runs.single_run import judged, verdict_of, verdict_text

__all__ = ["knockout"]

OUTPUTS = ("plain.mp4", "knockout.mp4", "effects.csv", "summary.json")


def knockout(
    prompt: Prompt,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    concepts: Concepts = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="Shell pattern of module paths or groups; repeatable. Default: all.")
    ] = None,
    heads: Annotated[str | None, typer.Option("--heads", help="Heads to cut, as in 0,3. Default: all.")] = None,
    at_steps: Annotated[
        str | None, typer.Option("--at-steps", help="Denoising steps to cut at: '0,5,-1' or 'start:stop:every'. Default: all.")
    ] = None,
    frames: Annotated[str | None, typer.Option("--frames", help="Latent frames where the words are cut. Default: all.")] = None,
    to: Annotated[str, typer.Option("--to", help="mask, padding or uncond.")] = "mask",
    scale: Annotated[float | None, typer.Option("--scale", help="Multiply the words' weights instead: 0 is the mask.")] = None,
    over: Annotated[
        str | None, typer.Option("--map", help="Also map effects over layer, step, head or frame, as in layer,step.")
    ] = None,
    model: Model = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    call: CallOptions = None,
    device: Device = "cpu",
    download: Download = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Sample PROMPT twice from one seed, plain and with its concepts cut out of attention: plain.mp4, knockout.mp4, summary.json;
    with --map also effects.csv.
    """
    import vico_lens as vl
    from vico_lens.intervention.balancing.quality import distance

    check_output(out, overwrite=overwrite, holds=OUTPUTS)
    request = Request(prompt, model, seed, call_of(steps, guidance, call), device, download)
    pipe = request.load()
    cut: dict[str, Any] = {
        "layers": layers or None,
        "heads": _numbers("--heads", heads),
        "steps": steps_of(at_steps),
        "frames": _numbers("--frames", frames),
        "to": to,
        "scale": scale,
    }
    session = vl.knockout(pipe, concepts, **cut)  # refuses impossible settings before anything is sampled
    axes = over.split(",") if over else []
    start = time.perf_counter()
    with staged(out, overwrite=overwrite, holds=OUTPUTS, rescue=("plain.mp4", "knockout.mp4")) as partial:
        partial.mkdir()
        plain = request.sample(pipe, "plain")
        vl.plot.save_mp4(plain, partial / "plain.mp4")
        with session:
            changed = request.sample(pipe, "knock-out")
        vl.plot.save_mp4(changed, partial / "knockout.mp4")
        effects = None
        if axes:
            effects = vl.causal_map(
                pipe,
                prompt,
                concepts,
                axes,  # type: ignore[arg-type]  # checked there
                layers=cut["layers"],
                steps=cut["steps"],
                to=to,  # type: ignore[arg-type]
                seed=seed,
                plan=lambda plan: note(f"map of {plan}"),
                **request.call,
            )
            effects.to_dataframe().to_csv(partial / "effects.csv")
        verdicts = {"plain": verdict_of(request, plain), "knockout": verdict_of(request, changed)}
        report = {
            "prompt": prompt,
            "seed": seed,
            "concepts": concepts,
            "cut": cut,
            "edited": session.edited,
            "forced": session.forced,
            "distance": distance(plain, changed),
            "judge": {side: judged(verdict) for side, verdict in verdicts.items()},
            "effects": None if effects is None else effects.to_dict(),
            "seconds": round(time.perf_counter() - start, 2),
            "files": [str(out / name) for name in OUTPUTS if effects is not None or name != "effects.csv"],
        }
        (partial / "summary.json").write_text(to_json(report) + "\n", encoding="utf-8")
    lines = [
        f"cut {sum(session.edited.values())} attention calls at {len(session.edited)} sites; the videos differ by "
        f"{report['distance']:.3f} (root mean square, full range is 1)",
        f"plain:     {verdict_text(verdicts['plain'])}",
        f"knock-out: {verdict_text(verdicts['knockout'])}",
        f"written to {out}",
    ]
    emit(report, "\n".join(lines), as_json=as_json)


def _numbers(option: str, text: str | None) -> list[int] | None:
    """Read whole numbers, as in ``0,3``."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"expected {option} to be whole numbers like '0,3', got {text!r}.") from None
