"""Flow through one group: a cross-attention site and the temporal self-attention sites that follow it.

This is what Vico optimises (arXiv 2407.06182, section 3.3): from a text token into every frame at one position, then along
time. The group is a sub-graph of the whole attention graph, so its flow to a video token is a lower bound of the whole one.
Four kinds:

- ``hard``: the widest path, a lower bound of the flow (a path carries one frame, the flow carries all in parallel);
- ``soft``: Vico's log-sum-exp of it, neither bound;
- ``sum``: (+, min), an upper bound, usually within some per cent of the flow;
- ``exact``: the flow itself, from `vico_lens.kernels.localflow`.

and ``rollout``, the plain matrix product, for comparison.

Residual connections are as in the whole graph. ``"share"``: self-attention ``(1 - rho) A + rho I`` and injection ``(1 - rho) C``.
``"add"``: the paper's graph, ``A + I`` and ``C``. ``"parity"``: what the released code optimises, ``(A + I) / 2`` and ``C``.

``soft`` and ``sum`` are not associative: their temporal hops are joined first, then met by the injection. So does the released
code, and for ``sum`` it is the order that can never exceed the injection itself: from the source, every frame would count it
anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.localflow import local_flow
from vico_lens.kernels.operators import Blend, Operator
from vico_lens.kernels.products import path_product

__all__ = ["Residual", "SubgraphKind", "merge_tokens", "self_capacity", "streamed_subgraph_flow", "subgraph_flow"]

SubgraphKind = Literal["hard", "soft", "sum", "exact", "rollout"]
Residual = Literal["share", "add", "parity"]


def self_capacity(weights: Tensor, residual: Residual = "share", rho: float = 0.5) -> Tensor:
    """Blend attention ``[.., query, key]`` of a self-attention site with its residual connection.

    Examples
    --------
    >>> self_capacity(torch.tensor([[0.6, 0.4], [0.2, 0.8]]), rho=0.5)
    tensor([[0.8000, 0.2000],
            [0.1000, 0.9000]])
    """
    identity = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    if residual == "add":
        return weights + identity
    if residual == "parity":
        return (weights + identity) / 2
    if residual != "share":
        raise InputError(f"residual: expected 'share', 'add' or 'parity'; got {residual!r}.")
    if not 0 <= rho < 1:
        raise InputError(f"rho: expected a residual share in [0, 1); got {rho}.")
    return (1 - rho) * weights + rho * identity


def merge_tokens(cross: Tensor, concepts: Sequence[Sequence[int]], kind: SubgraphKind, tau: float = 0.001) -> Tensor:
    """Join the columns of each concept's tokens into one source: ``[.., token]`` to ``[.., concept]``.

    Flows add along parallel edges, so ``sum``, ``exact`` and ``rollout`` add the tokens. A path takes one edge, so ``hard``
    takes the widest and ``soft`` its log-sum-exp.
    """
    count = cross.shape[-1]
    columns = []
    for tokens in concepts:
        if not tokens or not all(0 <= token < count for token in tokens):
            raise InputError(f"concepts: expected one or more tokens in 0..{count - 1} each; got {list(tokens)}.")
        part = cross[..., list(tokens)]
        if kind == "hard":
            columns.append(part.max(-1).values)
        elif kind == "soft":
            columns.append(tau * torch.logsumexp(part / tau, -1))
        else:
            columns.append(part.sum(-1))
    if not columns:
        raise InputError("concepts: expected at least one; got none.")
    return torch.stack(columns, -1)


def subgraph_flow(
    cross: Tensor,
    temporals: Sequence[Tensor] = (),
    *,
    kind: SubgraphKind = "hard",
    tau: float = 0.001,
    residual: Residual = "share",
    rho: float = 0.5,
    concepts: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Flow from each text token to each video token through one cross-attention site and the temporal sites after it.

    Differentiable in every kind, on the device of its input (``exact`` computes on the CPU).

    Parameters
    ----------
    cross : Tensor
        Attention of video to text, ``[frame, position, token]``.
    temporals : sequence of Tensor
        Attention along time at each position, ``[position, frame, key frame]``, in execution order; none gives the injection
        itself. A full space-time site fits too, as one position with ``frame * position`` "frames".
    kind : {"hard", "soft", "sum", "exact", "rollout"}
        See the module.
    tau : float
        Temperature of ``soft``. It must be small beside the weights: each hop adds up to ``tau * log(frames)``.
    residual : {"share", "add", "parity"}
        See the module.
    rho : float
        Residual share for ``residual="share"``.
    concepts : sequence of sequence of int, optional
        Tokens of each concept, joined into one source by `merge_tokens`; by default every token is its own source.

    Returns
    -------
    Tensor
        ``[frame, position, token]``, or ``[frame, position, concept]``.

    Raises
    ------
    InputError
        If shapes do not belong to one group, values are not finite, or an option is unknown.

    Examples
    --------
    >>> cross = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]])
    >>> temporal = torch.tensor([[[0.6, 0.4], [0.5, 0.5]]])
    >>> subgraph_flow(cross, [temporal], residual="parity")[:, 0]
    tensor([[0.8000, 0.2000],
            [0.2500, 0.7500]])
    """
    frames, positions = _check(cross, temporals, kind)
    injection = cross * (1 - rho) if residual == "share" else cross
    if concepts is not None:
        injection = merge_tokens(injection, concepts, kind, tau)
    hops = [self_capacity(weights, residual, rho) for weights in temporals]
    if kind == "exact":
        flow = local_flow(injection, hops)
        # An output video token reaches its sink with capacity 1; shared residuals never bring it more.
        return flow.clamp(max=1) if residual == "add" else flow
    flow = injection.permute(1, 0, 2)
    if kind in ("soft", "sum") and hops:
        hops = [reduce(lambda before, after: _step(after, before, kind, tau), hops)]
    for hop in hops:
        flow = _step(hop, flow, kind, tau)
    if not torch.isfinite(flow).all():
        raise InputError("expected finite attention weights; the flow is not. Look for NaN in `cross` or `temporals`.")
    return flow.permute(1, 0, 2).reshape(frames, positions, -1)


def streamed_subgraph_flow(
    reads: Tensor,
    hops: Sequence[Operator],
    *,
    kind: SubgraphKind,
    tau: float = 0.001,
    residual: Residual = "share",
    rho: float = 0.5,
    concepts: Sequence[Sequence[int]],
) -> Tensor:
    """`subgraph_flow` through full space-time sites whose maps are too large to be made: ``[video token, concept]``.

    Parameters
    ----------
    reads : Tensor
        Attention of video to text, ``[video token, token]``.
    hops : sequence of Operator
        Sites among all video tokens, in execution order.
    kind, tau, residual, rho, concepts
        As in `subgraph_flow`.

    Raises
    ------
    InputError
        If several hops would have to be joined first, which makes a map.
    """
    if len(hops) > 1 and kind not in ("hard", "rollout"):
        raise InputError(
            f"kind={kind!r} joins the {len(hops)} space-time sites after a cross-attention site before it meets them, which "
            "takes their maps. Use kind='hard' or 'rollout', a coarser grid=, or layers= with one such site a block."
        )
    blend = {"add": Blend(1.0, 1.0), "parity": Blend(0.5, 0.5)}.get(residual, Blend(1 - rho, rho))
    flow = merge_tokens(reads * (1 - rho) if residual == "share" else reads, concepts, kind, tau).T[None]
    for hop in hops:
        if kind == "rollout":
            flow = blend.new * hop.carry(flow) + blend.keep * flow
        else:
            # With one hop the exact flow is the (+, min) product.
            flow = hop.product("sum" if kind == "exact" else kind, flow, blend, tau)
    if kind == "exact" and residual == "add":
        flow = flow.clamp(max=1)
    return flow[0].T


def _step(hop: Tensor, flow: Tensor, kind: SubgraphKind, tau: float) -> Tensor:
    return torch.matmul(hop, flow) if kind == "rollout" else path_product(hop, flow, kind, tau)  # type: ignore[arg-type]


def _check(cross: Tensor, temporals: Sequence[Tensor], kind: SubgraphKind) -> tuple[int, int]:
    if kind not in ("hard", "soft", "sum", "exact", "rollout"):
        raise InputError(f"kind: expected 'hard', 'soft', 'sum', 'exact' or 'rollout'; got {kind!r}.")
    if cross.ndim != 3 or cross.numel() == 0:
        raise InputError(f"cross: expected a non-empty [frame, position, token]; got shape {tuple(cross.shape)}.")
    frames, positions, _ = cross.shape
    for place, weights in enumerate(temporals):
        if weights.shape != (positions, frames, frames):
            raise InputError(
                f"temporals[{place}]: expected [position, frame, key frame] = {(positions, frames, frames)} as `cross` has; "
                f"got {tuple(weights.shape)}. Bring both sites to one grid first."
            )
    return frames, positions
