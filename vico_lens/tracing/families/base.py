"""What has to be known of a pipeline family to read its attention: one row of plain values, so that a new family is data, not
code.

A row answers six questions. Which components denoise? How do the latents lie, and how many of their cells make one token? Which
module paths are which kind of attention, and which video axes did the model fold into the batch before calling the kernel? Where
do text tokens stand in a joint softmax? How do the branches of classifier-free guidance arrive? Which tokenizer made the text?
Only what these answers cannot express gets a function (`Rule.read`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vico_lens.vocabulary.schema import Branch, Grid, Kind

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vico_lens.tracing.raw_calls import Attended

__all__ = ["Axis", "Family", "Forward", "Grid", "LeftOut", "Reader", "Rule", "Unfolded", "unwrapped"]

Axis = Literal["frame", "y", "x"]
Layout = Literal["BCFHW", "BFCHW", "BFHWC", "packed"]
TextPlace = Literal["cross", "first", "last", "reordered"]
Guidance = Literal["batch", "passes", "guider"]


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward of a denoiser, as far as reading its attention needs it.

    Attributes
    ----------
    module : nn.Module
        The denoiser.
    inputs : mapping
        Its arguments by name.
    batch : int
        Rows of its batch: guidance branches times prompts times videos.
    grids : tuple of Grid
        Token grids (frames, rows, columns) that its attention may work on, finest first; one for a transformer, one a level for a
        UNet.
    texts : tuple of int
        Text tokens of each of the family's states, in the order in which they stand; image states that are all zero count
        nothing.

    Examples
    --------
    >>> from torch import nn
    >>> forward = Forward(nn.Identity(), {}, batch=2, grids=((8, 4, 4),), texts=(20, 6))
    >>> forward.text
    26
    """

    module: nn.Module
    inputs: Mapping[str, Any]
    batch: int
    grids: tuple[Grid, ...]
    texts: tuple[int, ...]

    @property
    def text(self) -> int:
        """Text tokens in all, 0 if unknown."""
        return sum(self.texts)


@dataclass(frozen=True, slots=True)
class Unfolded:
    """One batch row of one attention call, unfolded to the axes that `vico_lens.vocabulary.schema.AttentionCall` documents.

    Examples
    --------
    >>> part = Unfolded(0, (1, 2, 2), 1, 8, 5, None, None, 1.0, None, None)
    >>> part.grid, part.tokens
    ((1, 2, 2), 5)
    """

    row: int
    grid: Grid
    heads: int
    head_size: int
    tokens: int
    query: Tensor | None
    key: Tensor | None
    scale: float
    bias: Tensor | None
    probabilities: Tensor | None


class LeftOut(Exception):
    """Raised by a reader for a site that cannot be part of a trace, with the reason: it is reported, not fatal."""


Reader = Callable[["Attended", "Rule", "Family", Forward, Sequence[int]], Iterator[Unfolded]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which module paths a rule is for, and how their attention is laid out.

    Attributes
    ----------
    path : str
        Regular expression searched in the dotted path below the denoiser. The first rule that matches holds.
    kind : str or None
        Kind of the attention site; None leaves it out of a trace.
    fold : tuple of str
        Video axes that the model folded into the batch axis behind the row, outermost first: ``("frame",)`` for spatial attention
        of ``(row frame)`` batches, ``("y", "x")`` for temporal attention.
    reason : str
        Why it is left out, for the coverage report.
    pick : str
        Which call counts where a module makes several: ``first`` (adapters come after the text) or ``last`` (Wan I2V attends to
        its image first).
    read : callable or None
        Takes the place of the general unfolding.

    Examples
    --------
    >>> Rule("motion_modules.*attn1$", "temporal", fold=("y", "x")).kind
    'temporal'
    """

    path: str
    kind: Kind | None
    fold: tuple[Axis, ...] = ()
    reason: str = ""
    pick: Literal["first", "last"] = "first"
    read: Reader | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table: everything known of a family of pipelines.

    Attributes
    ----------
    name : str
        Short name, the key of the registry.
    title : str
        What people call it.
    pipelines : tuple of str
        Class names of its pipelines.
    models : tuple of str
        Class names of its denoisers: they identify a pipeline class that no row names.
    rules : tuple of Rule
        Attention modules by path, first match wins.
    denoisers : tuple of str
        Attribute names on the pipeline; the first that is there names the sites, experts after it share them.
    sample : str
        Name of the denoiser's argument that holds the latents.
    latents : str
        Order of that argument's axes: batch, channel, frame, height, width; or packed to tokens already.
    patch : tuple
        Latent frames, rows and columns of one token: a number, or the name of a configuration entry (``patch_size``,
        ``patch_size.0`` for one of several).
    levels : int
        Number of times the grid is halved on the way down (UNets: read from the configuration if -1).
    text : str
        Where text tokens are: in their own ``cross`` softmax, or ``first``, ``last`` or ``reordered`` in a joint one.
    states : tuple of str
        Names of the denoiser's arguments that hold text states, in the order in which their tokens stand.
    mask : str
        Name of the denoiser's argument that masks text tokens, if one is to be read.
    guidance : str
        How guidance branches arrive: one ``batch`` (unconditional first), two ``passes`` (conditional first), or a ``guider``
        object.
    thirds : tuple
        Labels of a batch of three parts (perturbed-attention guidance).
    tokenizers : tuple of str
        Attribute name of the tokenizer of each of `states`; empty for an image.
    quoted : tuple of str
        Those of `tokenizers` that are given only what stands in quotes in the prompt.
    crop : str
        Which part of a tokenized prompt is kept when the denoiser sees fewer tokens: its ``start``, its ``end`` (a template is
        cut off in front), its ``ends`` (the first token and the last ones), or ``front``: padding on the left is moved to the
        right.
    proven : tuple of str
        Configurations that ``vico_lens.testing.check_family`` proves in the test suite (names of tiny pipelines).
    notes : str
        What a reader of the table should know.

    Examples
    --------
    >>> rules = (Rule(r"attn1$", "spacetime"), Rule(r"attn2$", "cross"))
    >>> row = Family("mine", "My model", ("MyPipeline",), ("MyTransformer",), rules, patch=(1, 2, 2))
    >>> row.guidance, row.states
    ('batch', ('encoder_hidden_states',))
    """

    name: str
    title: str
    pipelines: tuple[str, ...]
    models: tuple[str, ...]
    rules: tuple[Rule, ...]
    denoisers: tuple[str, ...] = ("transformer",)
    sample: str = "hidden_states"
    latents: Layout = "BCFHW"
    patch: tuple[int | str, int | str, int | str] = (1, "patch_size", "patch_size")
    levels: int = 0
    text: TextPlace = "cross"
    states: tuple[str, ...] = ("encoder_hidden_states",)
    mask: str = ""
    guidance: Guidance = "batch"
    thirds: tuple[Branch | None, ...] = ("uncond", "cond", None)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    quoted: tuple[str, ...] = ()
    crop: Literal["start", "end", "ends", "front"] = "start"
    proven: tuple[str, ...] = ()
    notes: str = ""


def unwrapped(module: object) -> object:
    """Return the module inside a compiled one."""
    return getattr(module, "_orig_mod", module)
