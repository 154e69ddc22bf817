"""Writing and opening traces.

`TraceWriter` takes attention calls while the model runs and streams them to Zarr v3 from a thread of its own, with a bound on the
bytes in flight. A step is declared once it is whole, so a run that is killed at any moment leaves a store that opens and holds
every finished step. `open_trace` gives the tree of the schema, whatever the form the weights are stored in; it needs no
torch until weights are computed, so that looking through a trace starts fast.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vico_lens.errors import InputError, StoreError, VicoLensError
from vico_lens.store.background import Background
from vico_lens.store.layout import Header, token_coords
from vico_lens.store.opening import LIMIT, open_store, open_trace
from vico_lens.store.paths import local_path, pack, partial_of
from vico_lens.store.tracefile import TraceFile, plain_attrs
from vico_lens.store.zarrfile import Directory, Memory, Tree
from vico_lens.vocabulary.concepts import find_concepts
from vico_lens.vocabulary.schema import AttentionCall, Branch, Form, Precision, TokenTable
from vico_lens.vocabulary.selection import listed, positions

if TYPE_CHECKING:
    import xarray as xr

    from vico_lens.store.forms import Former

__all__ = ["TraceWriter"]


class TraceWriter:
    """Stores the attention calls of one run; implements `vico_lens.vocabulary.schema.Sink`.

    Parameters
    ----------
    to : path or None
        A folder to be made, a path that ends in ``.zip``, or None for memory. A zip is written as the folder ``<name>.partial``
        and packed on `close`.
    form : str
        ``weights`` stores maps, ``factors`` query and key, ``auto`` whichever is smaller at each site, ``given`` what each call
        has.
    dtype : str
        ``model`` (float32 for a float32 model, else float16), ``float32`` or ``float16``.
    tokens : str, int or sequence of them, optional
        Words of the prompt, or positions of text tokens, whose columns are kept of cross-attention; all by default.
    overwrite : bool
        Replace an existing trace at `to`, at the first call. Anything that is not a trace is never replaced.
    queue_bytes : int
        Bytes that may wait to be written; the model waits for the disk beyond that.

    Raises
    ------
    StoreError
        If there is something at `to` already, or nothing can be written there.
    InputError
        If `form` or `dtype` is unknown.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens
    >>> writer = TraceWriter(None, form="weights")
    >>> writer.start({"prompt": "a red circle"}, [fake_tokens("a red circle", 20)])
    >>> for call in fake_calls(fake_sites("unet"), fake_tokens("a red circle", 20)):
    ...     writer.write(call)
    >>> writer.finish_step(0)
    >>> writer.close().sizes["step"]
    1
    """

    def __init__(
        self,
        to: str | PathLike[str] | None,
        *,
        form: Form | Literal["given"] = "auto",
        dtype: Precision = "model",
        tokens: Sequence[str | int] | str | int | None = None,
        overwrite: bool = False,
        queue_bytes: int = 256 << 20,
    ) -> None:
        from vico_lens.store.forms import FORMS
        from vico_lens.store.precision import PRECISIONS

        for name, value, known in (("form", form, (*FORMS, "given")), ("dtype", dtype, PRECISIONS)):
            if value not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}; got {value!r}.")
        self.path = None if to is None else local_path(to)
        self.form = form
        self.dtype: Precision = dtype
        self._words = tokens
        self._tokens: list[int] | None = None
        self._overwrite = overwrite
        self._work = Background(queue_bytes)
        self._memory = Memory()
        self._file: TraceFile | None = None
        self._former: Former | None = None
        self._branches: tuple[Branch, ...] = ()
        self._prompts = 1
        self._step: tuple[int, float] | None = None
        self._failed = False
        if self.path is not None:
            _check_free(self.path, overwrite=overwrite)

    @property
    def _folder(self) -> Path:
        """Where files are written."""
        assert self.path is not None
        return partial_of(self.path) if self.path.suffix == ".zip" else self.path

    def start(
        self,
        attrs: Mapping[str, object],
        tokens: Sequence[TokenTable],
        *,
        prompts: int = 1,
        branches: Sequence[Branch] = ("cond",),
        steps: Sequence[int] | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Make the store. See `vico_lens.vocabulary.schema.Sink.start`."""
        from vico_lens.store.forms import Former

        if self._file is not None:
            raise StoreError("expected one start of a trace; got a second. Make a new TraceWriter for another run.")
        if len(tokens) not in (1, prompts):
            raise InputError(f"tokens: expected one table, or one for each of {prompts} rows; got {len(tokens)}.")
        longest = max((len(table) for table in tokens), default=0)
        tables = [table.padded(longest) for table in tokens]
        if self._words is not None:
            self._tokens = _chosen_tokens(self._words, attrs.get("prompt"), tables)
            tables = [table.only(self._tokens) for table in tables]
            longest, attrs = len(self._tokens), {**attrs, "partial_rows": True}
        header = Header(plain_attrs(attrs), [], [], tuple(branches), prompts, token_coords(tables))
        if self.path is not None and self._overwrite:
            for old in (self.path, partial_of(self.path)):
                _remove(old)
        target = self._memory if self.path is None else Directory(self._folder)
        self._branches, self._prompts = tuple(branches), prompts
        self._former = Former(self.form, self.dtype, longest)
        planned = None if steps is None else len(steps)
        with self._telling():
            self._file = TraceFile(Tree(target, compress=self.path is not None), header, planned)

    def write(self, call: AttentionCall) -> None:
        """Take one call; its tensors are copied before this returns."""
        file, former = self._started()
        if call.branch not in self._branches or not 0 <= call.prompt < self._prompts:
            raise StoreError(
                f"{call.site.module}: expected a call of {' or '.join(self._branches)} and a prompt row below {self._prompts}, "
                f"as declared at the start; got {call.branch}, row {call.prompt}."
            )
        if self._step is not None and self._step[0] != call.step:
            raise StoreError(f"expected step {self._step[0]} to be finished before a call of step {call.step}. Finish it first.")
        self._step = (call.step, float(call.timestep))
        if self._tokens is not None:
            from vico_lens.store.forms import only_tokens

            call = only_tokens(call, self._tokens)
        stored = former.take(call)
        branch = self._branches.index(call.branch)
        self._submit(lambda: file.put(stored, branch, call.prompt), stored.bytes)

    def finish_step(self, step: int) -> None:
        """Declare that every call of `step` was written: from then on the step survives a kill."""
        file, _ = self._started()
        current, timestep = self._step if self._step is not None else (step, float("nan"))
        if current != step:
            raise StoreError(f"expected step {current} to be finished, whose calls came last; got step {step}.")
        self._step = None
        self._submit(lambda: file.finish(step, timestep))

    def flush(self) -> None:
        """Wait until everything handed over so far is written."""
        self._started()
        with self._telling():
            self._work.drain()

    def annotate(self, attrs: Mapping[str, object]) -> None:
        """Add or replace provenance that was learned on the way."""
        file, _ = self._started()
        plain = plain_attrs(attrs)
        self._submit(lambda: file.annotate(plain))

    def keep_video(self, rgb: np.ndarray) -> None:
        """Keep the generated video, uint8 with axes ``frame, row, column, channel``."""
        file, _ = self._started()
        if rgb.dtype != np.uint8 or rgb.ndim != 4 or rgb.shape[-1] != 3:
            raise InputError(f"rgb: expected uint8 (frame, row, column, 3); got {rgb.dtype} {rgb.shape}.")
        frames = rgb.copy()
        self._submit(lambda: file.video(frames), frames.nbytes)

    def close(self, *, complete: bool = True) -> xr.DataTree:
        """End the trace and return it, opened; after a failed write, what was finished before it.

        Raises
        ------
        StoreError
            If the last writes failed, and nobody was told yet.
        """
        file, _ = self._started()
        if not self._failed:
            self._submit(lambda: file.end(complete=complete))
            with self._telling():
                self._work.drain()
                if self.path is not None and self.path.suffix == ".zip":
                    pack(self._folder, self.path)
        self._work.stop()
        if self.path is None:
            from zarr.storage import MemoryStore

            store = MemoryStore(self._memory.data, read_only=True)
            return open_store(store, "cpu", LIMIT)
        return open_trace(self.path)

    def discard(self) -> None:
        """End without a trace: nothing was started, so nothing is there to remove."""
        self._work.stop()

    def _started(self) -> tuple[TraceFile, Former]:
        if self._file is None or self._former is None:
            raise StoreError("expected start() before anything is written; got none. Call it at the first attention call.")
        return self._file, self._former

    def _submit(self, work: Any, size: int = 0) -> None:
        with self._telling():
            self._work.submit(work, size)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say in words what went wrong while writing, and how much of the trace is safe."""
        try:
            yield
        except OSError as error:
            self._failed = True
            finished = 0 if self._file is None else len(self._file.steps)
            raise StoreError(
                f"cannot write the trace to {self.path}: {error.strerror or error}. {finished} finished steps are safe "
                "there; free some space or choose another path, and run again."
            ) from error
        except BaseException:
            self._failed = True
            raise


def _chosen_tokens(words: Any, prompt: object, tables: Sequence[TokenTable]) -> list[int]:
    """Positions of the text tokens that are kept of every prompt."""
    numbers = [word for word in listed(words) if isinstance(word, int)]
    names = [word for word in listed(words) if not isinstance(word, int)]
    if names and (len(set(tables)) > 1 or not isinstance(prompt, str)):
        raise InputError(
            f"tokens={words!r}: expected words of one known prompt, got {prompt!r}. Give positions of tokens, or trace one "
            "prompt."
        )
    found = find_concepts(str(prompt), names, tables[0]) if names else []
    longest = len(tables[0]) if tables else 0
    if numbers:
        positions("tokens", numbers, range(longest))
    return sorted({*numbers, *(token for concept in found for token in concept.tokens)})


def _check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that is taken or cannot be written, before a model runs for it.

    Raises
    ------
    StoreError
        If something is there, other than a trace that may be overwritten, or nothing can be written there.
    """
    for old in (path, partial_of(path)):
        if not (old.exists() or old.is_symlink()):
            continue
        if not overwrite:
            raise StoreError(f"{old} exists already. Choose another path, or pass overwrite=True to replace a trace.")
        try:
            open_store(old, "cpu", 0)
        except VicoLensError as error:
            raise StoreError(f"expected a trace to overwrite at {old}; got something else, left as it is ({error})") from None
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir():
        raise StoreError(f"expected a folder above {path}; {existing} is a file. Choose another path.")
    probe = existing / f".vico-lens-{os.getpid()}.partial"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {existing}: {error.strerror or error}. Choose a path that can be written.") from error


def _remove(path: Path) -> None:
    """Remove a trace, which `_check_free` found to be one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
