"""A grid of runs, prompts x seeds x conditions, that can be stopped anywhere and goes on where it was.

Every run is a file of its own, named by a hash of all that determines it, written beside its place and then moved into it. So a
file that exists is a run that is finished, whatever killed the process; and a grid that grew, or was cut into pieces for several
machines, repeats nothing. Serial by default; with a `dask.distributed` client the same function runs on its workers, one pipeline
a worker.
"""

from __future__ import annotations

from vico_lens.runs.sweeps.grid import sweep
from vico_lens.runs.sweeps.grid_cell import Run
from vico_lens.runs.sweeps.record import load_sweep, run_of
from vico_lens.runs.sweeps.sampling import sample_run

__all__ = ["Run", "load_sweep", "run_of", "sample_run", "sweep"]
