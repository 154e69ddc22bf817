"""The words of a trace: attention sites, attention calls, token tables, and the names of every group, dimension and coordinate.

A trace is a plain `xarray.DataTree`; this module is the written convention that makes it one. It holds names only, no
storage and no mathematics, so that the model side (which makes calls) and the data side (which stores them) agree without
importing each other. Importing it costs nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from torch import Tensor

__all__ = [
    "JOINT_BLOCKS",
    "KEY_DIMS",
    "KINDS",
    "LEADING_DIMS",
    "QUERY_DIMS",
    "SCHEMA_VERSION",
    "TOKEN_KINDS",
    "AttentionCall",
    "AttentionSite",
    "Branch",
    "Form",
    "Grid",
    "Kind",
    "Precision",
    "Sink",
    "TokenKind",
    "TokenTable",
    "factor_dims",
    "group_name",
    "parse_group",
    "shared_dims",
    "softmax_dims",
    "weights_dims",
]

Grid = tuple[int, int, int]
"""Frames, rows and columns of a grid of video tokens."""

Kind = Literal["cross", "spatial", "temporal", "spacetime", "joint"]
Branch = Literal["cond", "uncond"]
TokenKind = Literal["text", "special", "padding"]
Form = Literal["auto", "weights", "factors"]
"""How a site is stored: its maps, its query and key, or whichever is smaller."""
Precision = Literal["model", "float32", "float16"]
"""How numbers are stored: as narrow as the model computes, or in one of two types."""

KINDS: tuple[Kind, ...] = get_args(Kind)
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)

SCHEMA_VERSION = 1
"""Raised when a trace written by an older release can no longer be read as it is."""

LEADING_DIMS: tuple[str, ...] = ("step", "branch", "prompt", "layer", "head")
"""Dimensions before the query's, in this order; `branch` and `prompt` exist only if more than one was recorded."""

QUERY_DIMS: dict[Kind, tuple[str, ...]] = {
    "cross": ("frame", "y", "x"),
    "spatial": ("frame", "y", "x"),
    "temporal": ("y", "x", "frame"),
    "spacetime": ("frame", "y", "x"),
}
"""Query dimensions of `weights`, by kind. A joint site has four blocks instead, see `JOINT_BLOCKS`."""

KEY_DIMS: dict[Kind, tuple[str, ...]] = {
    "cross": ("token",),
    "spatial": ("key_y", "key_x"),
    "temporal": ("key_frame",),
    "spacetime": ("key_frame", "key_y", "key_x"),
}
"""Key dimensions of `weights`, by kind: those over which a row sums to 1."""

JOINT_BLOCKS: dict[str, tuple[str, ...]] = {
    "video_text": ("frame", "y", "x", "token"),
    "text_video": ("token", "frame", "y", "x"),
    "text_text": ("token", "key_token"),
    "video_video": ("frame", "y", "x", "key_frame", "key_y", "key_x"),
}
"""The four blocks of a joint softmax. A row sums to 1 only over both of its blocks together."""

_GROUP = re.compile(r"(?P<kind>[a-z]+)/(?P<frames>\d+)x(?P<rows>\d+)x(?P<columns>\d+)")


def group_name(kind: Kind, grid: Grid) -> str:
    """Return the name of the group that holds sites of `kind` on `grid` (frames, rows, columns).

    >>> group_name("cross", (8, 4, 4))
    'cross/8x4x4'
    """
    return f"{kind}/{'x'.join(map(str, grid))}"


def parse_group(name: str) -> tuple[Kind, Grid] | None:
    """Return kind and grid of a group name, or None if `name` is not the name of a group of attention sites.

    >>> parse_group("/temporal/8x4x4")
    ('temporal', (8, 4, 4))
    >>> parse_group("/video") is None
    True
    """
    match = _GROUP.fullmatch(name.strip("/"))
    if match is None:
        return None
    kind = next((kind for kind in KINDS if kind == match["kind"]), None)
    return None if kind is None else (kind, (int(match["frames"]), int(match["rows"]), int(match["columns"])))


def weights_dims(kind: Kind, *, branch: bool = False, prompt: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the dimensions of each variable of attention weights in a group of `kind`.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    branch, prompt : bool
        Whether both guidance branches, or several prompts, were recorded.

    Returns
    -------
    dict
        Variable name to dimensions: ``weights`` alone, or the four blocks of a joint site.

    Examples
    --------
    >>> weights_dims("temporal")
    {'weights': ('step', 'layer', 'head', 'y', 'x', 'frame', 'key_frame')}
    """
    absent = {name for name, present in (("branch", branch), ("prompt", prompt)) if not present}
    leading = tuple(dim for dim in LEADING_DIMS if dim not in absent)
    blocks = JOINT_BLOCKS if kind == "joint" else {"weights": QUERY_DIMS[kind] + KEY_DIMS[kind]}
    return {name: leading + dims for name, dims in blocks.items()}


def shared_dims(kind: Kind, framed: bool = False) -> tuple[str, ...]:
    """Return the query dimensions along which a query meets keys of its own: the frame, or the position.

    `framed` says that the text of a cross site differs between frames.
    """
    if kind == "cross":
        return ("frame",) if framed else ()
    return {"spatial": ("frame",), "temporal": ("y", "x")}.get(kind, ())


def softmax_dims(kind: Kind) -> tuple[str, ...]:
    """Return the axes of the whole softmax of a call, against which its bias broadcasts.

    >>> softmax_dims("joint")
    ('head', 'sequence', 'key_sequence')
    """
    return ("head", "sequence", "key_sequence") if kind == "joint" else ("head", *QUERY_DIMS[kind], *KEY_DIMS[kind])


def factor_dims(kind: Kind, framed: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the axes of the query and key of a call.

    >>> factor_dims("temporal")["key"]
    ('head', 'y', 'x', 'key_frame', 'channel')
    """
    if kind == "joint":
        return {name: ("head", "sequence", "channel") for name in ("query", "key")}
    return {
        "query": ("head", *QUERY_DIMS[kind], "channel"),
        "key": ("head", *shared_dims(kind, framed), *KEY_DIMS[kind], "channel"),
    }


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """One softmax attention module of the denoiser.

    Attributes
    ----------
    module : str
        Dotted path from the pipeline component, such as ``unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2``.
    kind : str
        One of `KINDS`.
    grid : tuple of int
        Frames, rows and columns of the video token grid that this site works on.
    heads, head_size : int
        Number of attention heads, and channels of each.
    tokens : int
        Text tokens in its softmax; 0 for self-attention of the video.
    order : int
        Place in the denoiser's execution order over all sites, from 0.

    Examples
    --------
    >>> site = AttentionSite("unet.mid_block.attn2", "cross", (8, 4, 4), heads=4, head_size=16, tokens=32, order=5)
    >>> site.group, site.cells
    ('cross/8x4x4', 128)
    """

    module: str
    kind: Kind
    grid: Grid
    heads: int
    head_size: int
    tokens: int
    order: int

    @property
    def group(self) -> str:
        """Name of the group of the trace that holds this site."""
        return group_name(self.kind, self.grid)

    @property
    def cells(self) -> int:
        """Number of video tokens of the grid."""
        frames, rows, columns = self.grid
        return frames * rows * columns

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis that a call of this site can have."""
        axes = dict(zip(("frame", "y", "x"), self.grid, strict=True)) | {
            "token": self.tokens,
            "sequence": self.tokens + self.cells,
        }
        return {"head": self.heads, "channel": self.head_size} | axes | {f"key_{name}": size for name, size in axes.items()}

    def shape(self, dims: Sequence[str]) -> tuple[int, ...]:
        """Return the lengths of the named axes.

        >>> AttentionSite("unet.attn1", "temporal", (8, 4, 4), heads=2, head_size=16, tokens=0, order=0).shape(["y", "key_frame"])
        (4, 8)
        """
        sizes = self.sizes
        return tuple(sizes[dim] for dim in dims)


@dataclass(slots=True)
class AttentionCall:
    """One site at one denoising step, for one guidance branch and one row of the batch, unfolded to named axes.

    Query and key are the operands of the scaled dot product, after normalisation and rotary embedding; they are live tensors of
    the model and may carry a gradient. Their axes, and those that `bias` broadcasts against, by kind:

    | kind | query | key |
    |---|---|---|
    | cross | ``head frame y x channel`` | ``head token channel``, or ``head frame token channel`` |
    | spatial | ``head frame y x channel`` | ``head frame key_y key_x channel`` |
    | temporal | ``head y x frame channel`` | ``head y x key_frame channel`` |
    | spacetime | ``head frame y x channel`` | ``head key_frame key_y key_x channel`` |
    | joint | ``head sequence channel`` | ``head sequence channel`` |

    The sequence of a joint site is its text tokens, then its video tokens in row-major order of frame, y, x.

    Attributes
    ----------
    site : AttentionSite
        Where the call happened.
    step : int
        Index of the denoising step.
    timestep : float
        The scheduler's timestep of that step.
    branch : str
        Half of the classifier-free guidance: ``cond`` or ``uncond``.
    prompt : int
        Row over prompts times videos a prompt.
    query, key : Tensor or None
        Operands as above; None if the attention processor gave only its probabilities.
    scale : float
        Factor on the dot product.
    bias : Tensor or None
        Added to the scaled dot product. It broadcasts against ``head, *query dims, *key dims``, the axes that `weights` of this
        kind has (``head, sequence, key_sequence`` for a joint site). A mask arrives as a large negative, finite number: at or
        below ``vico_lens.kernels.softmax.MASKED`` a key counts as hidden.
    probabilities : Tensor or None
        The softmax itself, in those same axes, from a processor that materialises it.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_calls, fake_sites
    >>> call = fake_calls(fake_sites("unet"))[0]
    >>> call.site.kind, call.branch, call.query.ndim
    ('spatial', 'cond', 5)
    """

    site: AttentionSite
    step: int
    timestep: float
    branch: Branch
    prompt: int
    query: Tensor | None
    key: Tensor | None
    scale: float
    bias: Tensor | None = None
    probabilities: Tensor | None = None


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The text tokens of one prompt, in the order in which the denoiser's softmax sees them.

    Attributes
    ----------
    text : tuple of str
        The tokenizer's own string of each token (``"circle</w>"``).
    kind : tuple of str
        ``text``, ``special`` (start, end, template) or ``padding``.
    word : tuple of str
        The word of the prompt that the token is a piece of, empty for special tokens and padding.
    id : tuple of int
        Index in the tokenizer's vocabulary.
    start, stop : tuple of int
        Character span of the token in the prompt, -1 where it has none.

    Examples
    --------
    >>> table = TokenTable(("red</w>",), ("text",), ("red",), (60,), (0,), (3,))
    >>> len(table), table.word[0]
    (1, 'red')
    """

    text: tuple[str, ...]
    kind: tuple[TokenKind, ...]
    word: tuple[str, ...]
    id: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.text)

    @property
    def _rows(self) -> tuple[tuple[Any, ...], ...]:
        return self.text, self.kind, self.word, self.id, self.start, self.stop

    def only(self, tokens: Sequence[int]) -> TokenTable:
        """Return the table of some of the tokens."""
        return TokenTable(*(tuple(row[token] for token in tokens) for row in self._rows))

    def padded(self, length: int) -> TokenTable:
        """Return the table with padding at its end up to `length` tokens."""
        more = max(0, length - len(self))
        padding = ("", "padding", "", -1, -1, -1)
        return TokenTable(*(row + (value,) * more for row, value in zip(self._rows, padding, strict=True)))


class Sink(Protocol):
    """Where a tracer sends what it sees. The data side implements it (`vico_lens.store.TraceWriter`).

    Examples
    --------
    >>> from vico_lens.store.writer import TraceWriter
    >>> sink: Sink = TraceWriter(None)
    >>> sink.discard()
    """

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
        """Open the trace, once, before the first `write`.

        Parameters
        ----------
        attrs : mapping
            Provenance known so far. Values that are not numbers, strings or flat lists are kept as JSON.
        tokens : sequence of TokenTable
            One table for all rows, or one a row.
        prompts : int
            Rows recorded; a `prompt` dimension exists only if there are more than one.
        branches : sequence of str
            Branches recorded; a `branch` dimension exists only if there are two.
        steps, timesteps : sequence or None
            The steps that will be recorded, if known; steps outside are appended as they come.
        """

    def write(self, call: AttentionCall) -> None:
        """Take one call. Its tensors are copied before this returns, so the model may do with them what it likes."""

    def finish_step(self, step: int) -> None:
        """Declare that every call of `step` was written: from then on the step survives a kill."""

    def annotate(self, attrs: Mapping[str, object]) -> None:
        """Add or replace provenance that was learned on the way (coverage, seed)."""

    def keep_video(self, rgb: np.ndarray) -> None:
        """Keep the generated video, uint8 with axes ``frame, row, column, channel``."""

    def close(self, *, complete: bool = True) -> xr.DataTree:
        """End the trace and return it, opened. ``complete=False`` says that the run ended before its last step."""
