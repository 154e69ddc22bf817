"""From the words of a command line to one call of a pipeline: the prompt is checked, the model loaded, the video sampled."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vico_lens.errors import InputError, ModelError, VicoLensError

__all__ = ["Request", "check_call", "check_prompt", "fixed_threads", "quiet_pipeline"]


@dataclass(frozen=True, slots=True)
class Request:
    """What to sample, with which model.

    Attributes
    ----------
    prompt : str
        The text.
    model : str or None
        Folder or id of a diffusers pipeline; None for the bundled model.
    seed : int
        Seed of the starting noise.
    call : mapping
        Further arguments of the pipeline call.
    device : str
        Where the model runs.
    download : bool
        Whether a model of the hub may be downloaded.
    threads : int
        Threads of torch while the bundled model samples, so that its figures are the same on every machine.
    """

    prompt: str
    model: str | None = None
    seed: int = 0
    call: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    download: bool = False
    threads: int = 1

    @property
    def bundled(self) -> bool:
        """Whether the bundled model is asked for."""
        return self.model is None

    def load(self) -> Any:
        """Check the prompt, then load the pipeline, with the libraries' own chatter turned off.

        Raises
        ------
        InputError
            If the prompt is empty, the bundled model does not know one of its words, or the pipeline's call does not have an
            argument of this name.
        ModelError
            If there is no such model.
        """
        check_prompt(self.prompt, bundled=self.bundled)
        pipe = quiet_pipeline(self.model, self.device, download=self.download)
        check_call(pipe, self.call)
        return pipe

    def sample(self, pipe: Any, label: str) -> np.ndarray:
        """Call the pipeline once, with a progress bar named `label` where a person is watching; the bundled model on one thread.

        Returns
        -------
        ndarray
            The video, uint8 ``(frame, row, column, channel)``.

        Raises
        ------
        ModelError
            If the pipeline refuses its arguments or breaks off with them.
        """
        import torch

        from vico_lens.tracing.video import to_rgb

        # disable=None: tqdm draws the bar on a terminal only, so that logs stay readable.
        pipe.set_progress_bar_config(desc=label, leave=False, file=sys.stderr, disable=None)
        generator = torch.Generator().manual_seed(self.seed)
        try:
            with fixed_threads(self.threads) if self.bundled else nullcontext():
                frames = pipe(self.prompt, generator=generator, **self.call).frames
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, VicoLensError):
                raise
            raise ModelError(
                f"expected {type(pipe).__name__} to run with {dict(self.call) or 'its own settings'}; it says: {error} "
                "Change --call, --steps or --guidance."
            ) from error
        return to_rgb(frames)


def quiet_pipeline(model: str | None = None, device: str = "cpu", *, download: bool = False) -> Any:
    """Load a pipeline (the bundled one for None) with the chatter of the libraries turned off.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from vico_lens.tracing.pipelines import load_pipeline

    for chatter in (diffusers_logging, transformers_logging):
        chatter.set_verbosity_error()
        chatter.disable_progress_bar()
    pipe = load_pipeline(model, device=None if device == "cpu" else device, local_files_only=not download)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def fixed_threads(count: int = 1) -> Iterator[None]:
    """Let torch use `count` threads inside the ``with``: sums are split by threads, and a sampled video amplifies the difference.

    Runs of the bundled model fix the count, so that their figures are the same on every machine. They use one, since the model
    is so small that more threads save nothing; the demonstration keeps the two threads with which its clip was recorded.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_call(pipe: Any, names: Iterable[str]) -> None:
    """Refuse arguments that the pipeline's call does not have: one with ``**kwargs`` would ignore a typing error in silence.

    Raises
    ------
    InputError
        With the argument that was probably meant.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> check_call(tiny_pipeline("animatediff-t2v").pipe, ["num_frames"])
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    calls = [vars(kind)["__call__"] for kind in type(pipe).__mro__ if "__call__" in vars(kind)]  # one may pass on to the next
    parameters = [(name, value) for call in calls for name, value in inspect.signature(call).parameters.items()]
    known = list(dict.fromkeys(name for name, value in parameters if value.kind in kinds and name not in ("self", "prompt")))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"Did you mean {near[0]}?" if near else f"It takes {', '.join(known)}."
            raise InputError(f"the call of {type(pipe).__name__} has no argument {name!r}. {meant}")


def check_prompt(prompt: str, *, bundled: bool) -> None:
    """Refuse an empty prompt, and for the bundled model one with words it has never seen.

    Raises
    ------
    InputError
        With the words that are unknown and those that are known.
    """
    if not prompt.strip():
        raise InputError("the prompt is empty: say what the video should show, as in 'a red circle moving right'.")
    if not bundled:
        return
    from vico_lens.tinyworld.vocabulary import WORDS

    unknown = [word for word in dict.fromkeys(prompt.split()) if word not in WORDS]
    if unknown:
        raise InputError(
            f"the bundled model has never seen {', '.join(map(repr, unknown))}; its words are {', '.join(sorted(WORDS))}. "
            "For other prompts name a model: --model FOLDER_OR_ID."
        )
