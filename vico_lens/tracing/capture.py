"""What to record of a run: a frozen policy, kept as JSON in every trace it made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from vico_lens.errors import InputError
from vico_lens.vocabulary.schema import KINDS, AttentionCall, AttentionSite, Branch, Form, Kind, Precision
from vico_lens.vocabulary.selection import Heads, Layers, Steps, listed, matches, whole_number

__all__ = ["Capture", "parse_bytes"]

Branches = Literal["cond", "uncond", "both"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_bytes(size: str | int) -> int:
    """Read a number of bytes as people write it.

    Parameters
    ----------
    size : str or int
        ``"4GB"``, ``"512 MiB"``, ``"2e6"``, or the number itself.

    Raises
    ------
    InputError
        If it is not a positive size.

    Examples
    --------
    >>> parse_bytes("4GB"), parse_bytes("1.5 MiB")
    (4000000000, 1572864)
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([KMGT]?I?)B?\s*", str(size), re.IGNORECASE)
    try:
        number = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    except (KeyError, ValueError):
        number = 0.0
    if number < 1:
        raise InputError(f'expected a number of bytes such as "4GB" or "500 MiB", got {size!r}.')
    return int(number)


@dataclass(frozen=True, slots=True)
class Capture:
    """Which steps, sites and heads to record, in what form, and how many bytes it may take.

    Attributes
    ----------
    steps : slice, sequence of int, int or None
        Denoising steps, counted from 0; negative ones from the end. None records all.
    layers : str, int, sequence of them or None
        Shell patterns of module paths (``"*up_blocks*"``) or of groups (``"cross/8x8x8"``), or places in the execution order.
        None records all.
    kinds : sequence of str, str or None
        Kinds of attention.
    heads : sequence of int, int or None
        Heads by index. None records all.
    store : str
        ``weights`` (the maps), ``factors`` (query and key: exact, and far smaller for long sequences), or ``auto``, whichever is
        smaller at each site.
    dtype : str
        ``model`` for the dtype that the model computes in, ``float32`` or ``float16``.
    branch : str
        Guidance branch: ``cond``, ``uncond`` or ``both``.
    tokens : sequence of str or int, str, int or None
        Words of the prompt, or positions of text tokens, whose columns are recorded of cross-attention, as weights. None records
        all.
    budget : str, int or None
        Bytes that the capture may take, such as ``"4GB"``; more is refused before anything is recorded.

    Raises
    ------
    InputError
        If a value is not one of those above.

    Examples
    --------
    >>> Capture(steps=slice(0, None, 5), kinds="cross").chosen_steps(12)
    [0, 5, 10]
    """

    steps: Steps = None
    layers: Layers = None
    kinds: Sequence[Kind] | Kind | None = None
    heads: Heads = None
    store: Form = "auto"
    dtype: Precision = "model"
    branch: Branches = "cond"
    budget: str | int | None = None
    tokens: Sequence[str | int] | str | int | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("store", self.store, get_args(Form)),
            ("dtype", self.dtype, get_args(Precision)),
            ("branch", self.branch, get_args(Branches)),
            *(("kinds", kind, KINDS) for kind in ([] if self.kinds is None else listed(self.kinds))),
        ):
            if value not in allowed:
                raise InputError(f"expected Capture({name}=...) to be one of {', '.join(allowed)}, got {value!r}.")
        if self.kinds is not None and not listed(self.kinds):
            raise InputError("expected Capture(kinds=...) to be a kind or several, got none.")
        if self.layers is not None:
            layers = tuple(layer if isinstance(layer, str) else whole_number(layer) for layer in listed(self.layers))
            if not layers or None in layers:
                wanted = "a pattern, a place in the execution order, or several"
                raise InputError(f"expected Capture(layers=...) to be {wanted}, got {self.layers!r}.")
            object.__setattr__(self, "layers", self.layers if isinstance(self.layers, str) else layers)
        for name in ("heads", "steps"):  # numpy's numbers become Python's, for the policy is kept as JSON
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.heads is not None and any(head < 0 for head in listed(self.heads)):
            raise InputError(f"expected Capture(heads=...) to count from 0, got {self.heads!r}.")
        if self.tokens is not None:
            tokens = [token if isinstance(token, str) else whole_number(token) for token in listed(self.tokens)]
            if not tokens or any(token is None or (isinstance(token, int) and token < 0) for token in tokens):
                raise InputError(f"expected Capture(tokens=...) to be words or positions of tokens, got {self.tokens!r}.")
            object.__setattr__(self, "tokens", self.tokens if isinstance(self.tokens, str) else tuple(tokens))
        if self.budget is not None:
            parse_bytes(self.budget)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Guidance branches to record."""
        return ("cond", "uncond") if self.branch == "both" else (self.branch,)

    @property
    def bytes(self) -> int | None:
        """The budget in bytes, or None."""
        return None if self.budget is None else parse_bytes(self.budget)

    def chosen_steps(self, count: int) -> list[int]:
        """Return the steps to record of a run of `count` steps, in order.

        Raises
        ------
        InputError
            If none of them is in the run.
        """
        if self.steps is None:
            return list(range(count))
        if isinstance(self.steps, slice):
            chosen = list(range(count))[self.steps]
        else:
            chosen = sorted({step % count for step in listed(self.steps) if -count <= step < count})
        if not chosen:
            raise InputError(
                f"expected Capture(steps={self.steps!r}) to name some of the {count} steps of this run, 0 to {count - 1}."
            )
        return sorted(chosen)

    def wants(self, site: AttentionSite) -> bool:
        """Whether a site is to be recorded."""
        return (self.kinds is None or site.kind in listed(self.kinds)) and matches(site, self.layers)

    def chosen_heads(self, site: AttentionSite) -> list[int] | None:
        """Return the heads to keep of a site, None for all.

        Raises
        ------
        InputError
            If the site has none of them.
        """
        if self.heads is None:
            return None
        chosen = sorted({head for head in listed(self.heads) if head < site.heads})
        if not chosen:
            raise InputError(
                f"expected Capture(heads={self.heads!r}) to name heads of {site.module}, which has 0 to {site.heads - 1}."
            )
        return chosen

    def most_tokens(self, site: AttentionSite) -> int:
        """Return how many columns of text are recorded of a site at most; a word has no more tokens than letters."""
        if self.tokens is None or site.kind != "cross":
            return site.tokens
        return min(site.tokens, sum(len(token) if isinstance(token, str) else 1 for token in listed(self.tokens)))

    def only_heads(self, call: AttentionCall) -> AttentionCall:
        """Return a call with the heads that are recorded."""
        heads = self.chosen_heads(call.site)
        if heads is None:
            return call
        query, key, probabilities = (None if x is None else x[heads] for x in (call.query, call.key, call.probabilities))
        bias = call.bias if call.bias is None or call.bias.shape[0] == 1 else call.bias[heads]
        site = replace(call.site, heads=len(heads))
        return replace(call, site=site, query=query, key=key, bias=bias, probabilities=probabilities)

    def to_json(self) -> str:
        """Write the policy as JSON.

        Examples
        --------
        >>> Capture(steps=slice(0, None, 5)).to_json()[:40]
        '{"steps": {"slice": [0, null, 5]}, "laye'
        """
        values: dict[str, Any] = asdict(self)
        if isinstance(self.steps, slice):
            values["steps"] = {"slice": [self.steps.start, self.steps.stop, self.steps.step]}
        return json.dumps(values)


def _whole(name: str, value: Any) -> Any:
    """Return `value` with its numbers as plain integers: one, several in a tuple, a slice of them, or None."""
    sliced = isinstance(value, slice)
    if value is None:
        return None
    numbers = (value.start, value.stop, value.step) if sliced else listed(value)
    kept = [None if sliced and number is None else whole_number(number) for number in numbers]
    wrong = any(new is None and old is not None for new, old in zip(kept, numbers, strict=True)) or (sliced and kept[2] == 0)
    if not kept or wrong or (sliced and name != "steps"):
        raise InputError(f"expected Capture({name}=...) to be whole numbers, got {value!r}.")
    if sliced:
        return slice(*kept)
    return tuple(kept) if isinstance(value, Iterable) else kept[0]
