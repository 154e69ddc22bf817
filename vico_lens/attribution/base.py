"""What an attribution method is: a function on stages, and what it declares about itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels.stages import Grid, Stage, resample
from vico_lens.vocabulary.registry import Registry
from vico_lens.vocabulary.schema import KINDS, Kind

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["METHODS", "Answer", "Method", "Problem", "Residual", "influence_of_stages", "methods", "register_method"]

Residual = Literal["share", "add"]
MAP_DIMS = ("concept", "frame", "y", "x")


@dataclass(frozen=True, slots=True)
class Problem:
    """What a method is asked: the influence of each concept, given the stages of one step.

    Attributes
    ----------
    stages : sequence of Stage
        In execution order, all on `grid`; empty for a method that needs the pipeline.
    tokens : tuple of tuple of int
        Token indices of each concept. They act together: additive methods sum over them, flows start from all of them at once.
    grid : tuple of int
        Frames, rows, columns of the result.
    rho : float
        Residual share of a stage.
    residual : str
        ``"share"``: capacities ``(1 - rho) A + rho I`` and ``(1 - rho) C``; ``"add"``: ``A + I`` and ``C`` (arXiv 2407.06182).
    names : tuple of str
        Concept names.
    steps : tuple of int
        The step of `stages`; for a method that needs the pipeline, all steps asked for.
    tree, pipe, prompt : optional
        The trace, the pipeline and the row of a batched trace, for methods that go back to the model.

    Examples
    --------
    >>> import torch
    >>> cross = Stage("cross", "attn2", 0, (1, 1, 2), torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]))
    >>> problem = Problem((cross,), tokens=((0,),), grid=(1, 1, 2))
    >>> methods()["cross_attention"](problem).flatten().tolist()
    [0.75, 0.5]
    """

    stages: Sequence[Stage]
    tokens: tuple[tuple[int, ...], ...]
    grid: Grid
    rho: float = 0.5
    residual: Residual = "share"
    names: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    tree: xr.DataTree | None = None
    pipe: Any = None
    prompt: int | None = None

    @property
    def trace(self) -> xr.DataTree:
        """The trace, for methods that cannot do without."""
        if self.tree is None:
            raise InputError("this method needs the trace that the stages came from; call vico_lens.attribute with it.")
        return self.tree


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method may return instead of a bare ``[concept, frame, y, x]`` tensor: other dimensions, coordinates, notes.

    Attributes
    ----------
    values : Tensor
        Influence, with axes `dims`.
    dims : tuple of str
        Starts with ``concept``; a method that needs the pipeline may have ``step`` next.
    coords : mapping
        Name to (dimensions, array), such as the certificate of an exact flow.
    attrs : mapping
        Notes for the result's attributes.

    Examples
    --------
    >>> import torch
    >>> answer = Answer(torch.ones(2), dims=("concept",), attrs={"note": "one number a concept"})
    >>> answer.dims
    ('concept',)
    """

    values: Tensor
    dims: tuple[str, ...] = MAP_DIMS
    coords: Mapping[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]] = field(default_factory=dict)
    attrs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Method:
    """An attribution method with its declared capabilities; calling it calls its function.

    Attributes
    ----------
    name : str
        Name in the registry.
    function : callable
        ``function(problem, **options)`` giving a tensor ``[concept, frame, y, x]`` or an `Answer`.
    exact : bool
        Whether the number is exactly the quantity it is named after (not a bound or an approximation).
    differentiable : bool
        Whether gradients flow to the weights of live stages.
    needs_pipe : bool
        Whether it runs the model again, so that ``attribute(..., pipe=...)`` is required.
    cost : str
        Leading cost a step, in words or O() with N video tokens, T text tokens, K concepts, L stages.
    reads : tuple of str
        Kinds of attention site it looks at; the others are not read from the trace.
    needs : tuple of str
        Kinds of which at least one must be there.
    products : float
        How many products of query and key it takes at each site: the unit in which `vico_lens.attribution.plan` counts.
    references : str
        Where it is defined, as arXiv ids or titles.

    Examples
    --------
    >>> method = methods()["subgraph_flow"]
    >>> method.differentiable, method.needs_pipe, sorted(method.options)
    (True, False, ['kind', 'parity', 'tau'])
    """

    name: str
    function: Callable[..., Tensor | Answer]
    exact: bool = False
    differentiable: bool = False
    needs_pipe: bool = False
    cost: str = ""
    reads: tuple[Kind, ...] = KINDS
    needs: tuple[Kind, ...] = ("cross", "joint")
    products: float = 1.0
    references: str = ""

    def __call__(self, problem: Problem, **options: Any) -> Tensor | Answer:
        """Run the method's function."""
        return self.function(problem, **options)

    @property
    def summary(self) -> str:
        """First line of the function's documentation."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, object]:
        """Options of its own, with their defaults."""
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}

    def check_options(self, options: Mapping[str, object]) -> None:
        """Refuse an option that the method does not have, naming those it has."""
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            have = ", ".join(f"{name}={default!r}" for name, default in self.options.items()) or "none"
            raise InputError(f"{self.name} has no option {', '.join(unknown)}; its own options: {have}.")


METHODS: Registry[Method] = Registry("attribution method", "vico_lens.methods", "vico_lens.attribution.methods")


def register_method(name: str, *, replace: bool = False, **declared: Any) -> Callable[[Callable[..., Tensor | Answer]], Method]:
    """Return a decorator that adds an attribution method; everything declared goes to `Method`.

    Examples
    --------
    The share of each frame's attention that a concept gets in the last cross-attention stage, whatever the layers before did:

    >>> import torch
    >>> from vico_lens.attribution import register_method
    >>> from vico_lens.attribution.base import methods
    >>> @register_method("last_layer", differentiable=True, cost="O(N T)", reads=("cross",))
    ... def last_layer(problem):
    ...     "Cross-attention of the last stage alone."
    ...     weights = problem.stages[-1].weights
    ...     maps = [weights[..., list(tokens)].sum(-1) for tokens in problem.tokens]
    ...     return torch.stack(maps).reshape(len(maps), *problem.grid)
    >>> "last_layer" in methods()
    True
    >>> METHODS.remove("last_layer")
    """

    def decorate(function: Callable[..., Tensor | Answer]) -> Method:
        method = Method(name, function, **declared)
        METHODS.add(name, method, replace=replace)
        return method

    return decorate


def methods() -> dict[str, Method]:
    """Return every attribution method by name, with what it declares: exact, differentiable, needs_pipe, cost.

    Examples
    --------
    >>> [name for name, method in methods().items() if method.needs_pipe]
    ['feature_ablation', 'input_x_gradient', 'integrated_gradients', 'leave_one_out', 'shapley_values']
    """
    return {name: METHODS[name] for name in METHODS}


def check_capacities(rho: float, residual: str) -> None:
    """Refuse a residual share that leaves no attention and an unknown residual convention."""
    if not 0.0 <= rho < 1.0:
        raise InputError(f"rho: expected a residual share of at least 0 and below 1; got {rho}.")
    if residual not in ("share", "add"):
        raise InputError(f"residual: expected 'share' ((1-rho) A + rho I) or 'add' (A + I); got {residual!r}.")


def check_tokens(stages: Sequence[Stage], tokens: Sequence[Sequence[int]]) -> None:
    """Refuse concepts without tokens, with one token twice, or with tokens that the stages' softmax does not have."""
    if not tokens or any(len(span) == 0 for span in tokens):
        raise InputError("concepts: expected at least one concept, each with at least one token; got an empty selection.")
    twice = [list(span) for span in tokens if len(set(span)) < len(span)]
    if twice:
        raise InputError(f"concepts: expected every token of a concept once, or it would count twice; got {twice}.")
    sizes = {stage.tokens for stage in stages if stage.tokens}
    if len(sizes) > 1:
        raise AttributionError(
            f"expected one number of text tokens over all stages; got {sorted(sizes)}. Choose layers= that agree."
        )
    for size in sizes:
        outside = sorted({token for span in tokens for token in span if not 0 <= token < size})
        if outside:
            raise InputError(f"concepts: tokens {outside} are outside the {size} text tokens of the softmax.")


def influence_of_stages(
    stages: Sequence[Stage],
    tokens: Sequence[Sequence[int]],
    method: str | Method = "subgraph_flow",
    *,
    rho: float = 0.5,
    residual: Residual = "share",
    grid: Grid | None = None,
    **options: Any,
) -> Tensor:
    """Influence of concepts given stages, as a tensor: what a balancer differentiates and `attribute` stores.

    Parameters
    ----------
    stages : sequence of Stage
        Of one step, from live calls or from a trace.
    tokens : sequence of sequence of int
        Token indices of each concept.
    method : str or Method
        A method that works on stages (not one that needs the pipeline).
    rho, residual
        Capacities, see `Problem`.
    grid : tuple of int, optional
        Grid of the result; the finest of the stages that read text by default.
    **options
        The method's own.

    Returns
    -------
    Tensor
        ``[concept, frame, y, x]``, or the dimensions the method's options ask for; differentiable if the method declares it.

    Examples
    --------
    >>> import torch
    >>> cross = Stage("cross", "attn2", 0, (1, 1, 2), torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]))
    >>> influence_of_stages([cross], [[0], [1]], "cross_attention").flatten(1).tolist()
    [[0.75, 0.5], [0.25, 0.5]]
    """
    chosen = METHODS[method] if isinstance(method, str) else method
    if chosen.needs_pipe:
        raise InputError(
            f"{chosen.name} goes back to the model and has no meaning on stages alone; use attribute(..., pipe=...)."
        )
    check_capacities(rho, residual)
    chosen.check_options(options)
    read = [stage for stage in stages if stage.kind in chosen.reads]
    if not any(stage.kind in chosen.needs for stage in read):
        have = ", ".join(sorted({stage.kind for stage in stages})) or "no stages"
        raise AttributionError(f"{chosen.name} expected {' or '.join(chosen.needs)} attention; got {have}.")
    check_tokens(read, tokens)
    if grid is None:
        grid = max((stage.grid for stage in read if stage.tokens), key=lambda sizes: (sizes[0] * sizes[1] * sizes[2], sizes))
    problem = Problem(
        tuple(resample(stage, grid) for stage in read), tuple(tuple(span) for span in tokens), grid, rho=rho, residual=residual
    )
    answer = chosen(problem, **options)
    return answer.values if isinstance(answer, Answer) else answer
