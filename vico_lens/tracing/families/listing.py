"""The table of families for people: what ``vico-lens models`` and the documentation print."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vico_lens.tracing.families import FAMILIES

__all__ = ["Listed", "as_markdown", "listed_families"]

_TEXT = {
    "cross": "own softmax",
    "first": "joint, first",
    "last": "joint, last",
    "reordered": "joint, valid tokens first",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the table.

    Attributes
    ----------
    name, title : str
        Key of the registry, and what people call the family.
    pipelines : tuple of str
        Class names in diffusers.
    kinds : tuple of str
        Kinds of attention that a trace holds.
    text : str
        Where the text tokens are.
    guidance : str
        How the guidance branches arrive.
    left_out : tuple of str
        Why some attention is not part of a trace.
    proven : tuple of str
        Configurations that the test suite proves.
    notes : str
        What else to know.
    """

    name: str
    title: str
    pipelines: tuple[str, ...]
    kinds: tuple[str, ...]
    text: str
    guidance: str
    left_out: tuple[str, ...]
    proven: tuple[str, ...]
    notes: str

    def to_dict(self) -> dict[str, object]:
        """Return the line as plain values."""
        return asdict(self)


def listed_families() -> list[Listed]:
    """Return the table, one line a family, third-party ones too.

    Examples
    --------
    >>> next(line.kinds for line in listed_families() if line.name == "latte")
    ('spatial', 'cross', 'temporal')
    """
    lines = []
    for name in FAMILIES:
        family = FAMILIES[name]
        kinds = tuple(dict.fromkeys(rule.kind for rule in family.rules if rule.kind is not None))
        left_out = tuple(dict.fromkeys(rule.reason for rule in family.rules if rule.kind is None))
        lines.append(
            Listed(
                name,
                family.title,
                family.pipelines,
                kinds,
                _TEXT[family.text],
                family.guidance,
                left_out,
                family.proven,
                family.notes,
            )
        )
    return lines


def as_markdown() -> str:
    """Return the table as Markdown, for the documentation.

    Examples
    --------
    >>> as_markdown().splitlines()[0]
    '| Family | Pipelines | Kinds | Text | Guidance | Proven on | Notes |'
    """
    rows = ["| Family | Pipelines | Kinds | Text | Guidance | Proven on | Notes |", "|---|---|---|---|---|---|---|"]
    for line in listed_families():
        notes = " ".join(filter(None, (line.notes, *(f"Left out: {reason}." for reason in line.left_out))))
        cells = (
            line.title,
            ", ".join(f"`{name}`" for name in line.pipelines),
            ", ".join(line.kinds),
            line.text,
            line.guidance,
            ", ".join(line.proven) or "not yet",
            notes,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
