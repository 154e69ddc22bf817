"""A model of real size, traced on this machine: Wan 2.1 1.3B as published, with random weights in bfloat16.

Depth, width, heads and text are those of ``Wan-AI/Wan2.1-T2V-1.3B-Diffusers`` (30 blocks, 12 heads of 128 channels, feed-forward
8,960, 512 text tokens of 4,096 channels); only the video is small. The text encoder is a toy of the right width, the pipeline is
the stock one. Compared: what `vl.estimate` says before the run, with what the trace then takes.

    python -m benchmarks.real_size               # about 3 GB and a few minutes; writes benchmarks/results/real_size.md
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks import Measured

__all__ = ["measure", "wan_1_3b"]

RESULTS = Path(__file__).parent / "results" / "real_size.md"
CONFIG = {
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
    "rope_max_seq_len": 1024,
}
CALL: dict[str, Any] = {
    "height": 128,
    "width": 128,
    "num_frames": 9,
    "num_inference_steps": 4,
    "max_sequence_length": 512,
    "output_type": "latent",
}
PROMPT = "a red circle moving right and a blue square moving up"


def wan_1_3b() -> Any:
    """Build the stock pipeline around a transformer of the published configuration."""
    from diffusers import WanTransformer3DModel

    from vico_lens.testing.pipelines import tiny_pipeline
    from vico_lens.testing.pipelines.parts import umt5
    from vico_lens.testing.pipelines.wan import transformer_config

    pipe = tiny_pipeline("wan21-t2v").pipe
    torch.set_default_dtype(torch.bfloat16)
    try:
        pipe.transformer = WanTransformer3DModel(**transformer_config(**CONFIG)).eval().requires_grad_(False)
        pipe.register_modules(**umt5(CONFIG["text_dim"]))
    finally:
        torch.set_default_dtype(torch.float32)
    return pipe


class _Clock:
    """Processor seconds that tracing takes: in reading attention calls, in the writer's thread, and at the beginning and the end.

    The whole call traced, less the whole call untraced, would be the plain figure; but the two differ by a second from run to
    run, which is as long as what is sought. What is missed so is the time for which torch functions pass through the mode.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - start

        return timed


def _peak(*, forget: bool = False) -> int:
    """Return the largest resident memory so far, and forget it if asked to: then the next is that since now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    if forget:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure() -> list[Measured]:
    """Estimate, run untraced and traced to disk; then the memory of either kind of trace, in processes of their own."""
    import vico_lens as vl
    from vico_lens.store.background import Background
    from vico_lens.tracing.attention_calls import Watch
    from vico_lens.tracing.recording import Recording

    torch.set_num_threads(1)
    pipe = wan_1_3b()
    parameters = sum(p.numel() for p in pipe.transformer.parameters())
    start = time.perf_counter()
    plan = vl.estimate(pipe, PROMPT, measure=True, **CALL)
    planned = time.perf_counter() - start
    expected = int(plan.total_bytes)

    def call() -> Any:
        return pipe(PROMPT, generator=torch.Generator().manual_seed(0), **CALL).frames

    found = [
        Measured("parameters of the denoiser", parameters / 1e9, "billion"),
        Measured("attention sites", plan.sizes["site"], ""),
        Measured("estimate: made in", planned, "s"),
        Measured("estimate: bytes of the trace", expected / 1e6, "MB"),
        Measured("estimate: seconds that tracing adds", float(plan.seconds - plan.seconds_untraced), "s"),
    ]
    with vl.trace(pipe, capture=vl.Capture(steps=0)):  # what a trace imports is no memory of this one
        call()
    start = time.process_time()
    plain = call()
    untraced = time.process_time() - start
    found.append(Measured("untraced: processor time", untraced, "s"))
    clock = _Clock()
    timed = ((Watch, "attended"), (Watch, "enter"), (Background, "_run"), (Recording, "__enter__"), (Recording, "__exit__"))
    kept = [getattr(owner, name) for owner, name in timed]
    for owner, name in timed:
        setattr(owner, name, clock.around(getattr(owner, name)))
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            with vl.trace(pipe, to=Path(folder) / "run.zarr") as run:
                traced = call()
            busy = time.process_time() - start
            stored = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            held = sum(array.nbytes for array in _stored_arrays(Path(folder) / "run.zarr"))
    finally:
        for (owner, name), function in zip(timed, kept, strict=True):
            setattr(owner, name, function)
    found += [
        Measured("traced: video equal bit for bit", float(torch.equal(torch.as_tensor(plain), torch.as_tensor(traced))), ""),
        Measured("traced: sites recorded", float(run.coverage["recorded"]), ""),  # type: ignore[arg-type]
        Measured("traced: processor time of tracing", clock.seconds, "s"),
        Measured("traced: processor time over untraced", busy / untraced, "x"),
        Measured("traced: bytes of the arrays", held / 1e6, "MB"),
        Measured("traced: bytes of the arrays over the estimate", held / expected, "x"),
        Measured("traced: bytes on disk, compressed", stored / 1e6, "MB"),
    ]
    for to in ("disk", "memory"):
        found += _apart(memory, to, expected)
    return found


def _resident() -> int:
    """Return the resident memory, once freed memory is given back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def memory(to: str, expected: int) -> list[Measured]:
    """Compare the memory of an untraced call with that of a traced one, in a process that did nothing before.

    Parameters
    ----------
    to : str
        ``disk`` or ``memory``.
    expected : int
        Bytes that were estimated.
    """
    import vico_lens as vl

    torch.set_num_threads(1)
    pipe = wan_1_3b()

    def call() -> Any:
        return pipe(PROMPT, generator=torch.Generator().manual_seed(0), **CALL).frames

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run.zarr" if to == "disk" else None
        with vl.trace(pipe, place and place.with_name("warm.zarr"), vl.Capture(steps=0)):  # imports are no memory of the trace
            call()
        before = _resident()
        _peak(forget=True)
        call()
        untraced = _peak()
        _resident()
        _peak(forget=True)
        with vl.trace(pipe, place) as run:
            call()
        traced, held = _peak(), _resident() - before
        assert run.tree.sizes
    rows = [Measured(f"traced to {to}: peak memory over that of the untraced call", (traced - untraced) / 1e6, "MB")]
    if to == "disk":
        return [Measured("untraced: peak memory", untraced / 1e6, "MB"), *rows]
    rows.append(Measured("traced to memory: the same over the estimate", (traced - untraced) / expected, "x"))
    rows.append(Measured("traced to memory: held after the call", held / 1e6, "MB"))
    return [*rows, Measured("traced to memory: held, over the estimate", held / expected, "x")]


def _apart(function: Callable[..., list[Measured]], *args: Any) -> list[Measured]:
    """Call a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _stored_arrays(path: Path) -> list[Any]:
    """The arrays that hold attention, as they lie in the store."""
    import zarr

    nodes = zarr.open_group(path, mode="r").members(max_depth=None)
    kept = ("query", "key", "weights", "bias")
    return [node for name, node in nodes if isinstance(node, zarr.Array) and name.rpartition("/")[2] in kept]


def main() -> None:
    """Measure, print, and write the page."""
    load = os.getloadavg()[1]
    rows = measure()
    lines = [
        "# Wan 2.1 1.3B, traced on a laptop-sized machine",
        "",
        f"`python -m benchmarks.real_size` on {platform.platform()}, {os.cpu_count()} cores, one thread of torch, Python "
        f"{platform.python_version()}, torch {torch.__version__}; load average {load:.1f}. The published configuration "
        "(Wan-AI/Wan2.1-T2V-1.3B-Diffusers, `transformer/config.json`) with random weights in bfloat16, on a video of "
        f"{CALL['num_frames']} frames of {CALL['width']} x {CALL['height']} pixels, {CALL['num_inference_steps']} steps with "
        "guidance; every step, layer and head of the conditional branch is recorded.",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {row.name} | {row.value:.4g} {row.unit} |" for row in rows),
    ]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
