"""One exercise in the laboratory: predict the maximum flow, push until nothing is left, compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from vico_lens.attribution.lab.flow import Cut, Flow, Path
from vico_lens.attribution.lab.network import Network, exact
from vico_lens.errors import InputError

__all__ = ["Game", "cut_in_words", "written"]

_MEANING = {
    "source": "That is the sum of all edges of “{concept}”: here max flow says no more than summed cross-attention.",
    "sink": "That is all that the last tokens can take in, whoever sends it: here max flow cannot tell concepts apart.",
    "no": "It lies inside: neither the edges of “{concept}” nor the last tokens alone decide.",
}


def written(value: Fraction) -> str:
    """A value as a person would type it: decimals, or a fraction where they do not end.

    Examples
    --------
    >>> written(Fraction(9, 10)), written(Fraction(1)), written(Fraction(1, 3))
    ('0.9', '1', '1/3')
    """
    number = f"{float(value):.6g}"
    return number if Fraction(number) == value else str(value)


@dataclass(frozen=True, slots=True)
class Game:
    """A prediction and the flows pushed so far; every move gives a new game.

    Attributes
    ----------
    flows : tuple of Flow
        From nothing to what flows now.
    prediction : Fraction or None
        Made before the first push.
    shown : bool
        The rest was pushed by the computer.

    Examples
    --------
    >>> from vico_lens.attribution.lab import presets
    >>> game = Game.start(presets["two_roads"].network, "red circle").predict(0.7)
    >>> while not game.solved:
    ...     game = game.push(game.flow.paths()[0])
    >>> game.verdict()
    'Solved with 2 paths: the maximum flow is 0.7, as you predicted.'
    """

    flows: tuple[Flow, ...]
    prediction: Fraction | None = None
    shown: bool = False

    @classmethod
    def start(cls, network: Network, concept: str) -> Game:
        """Nothing predicted, nothing sent."""
        return cls((Flow(network, concept),))

    @property
    def flow(self) -> Flow:
        """What flows now."""
        return self.flows[-1]

    @property
    def pushes(self) -> int:
        """Paths pushed so far."""
        return len(self.flows) - 1

    @property
    def solved(self) -> bool:
        """Whether a prediction was made and no path is left."""
        return self.prediction is not None and not self.flow.paths(1)

    @property
    def right(self) -> bool:
        """Whether the game is solved and the prediction was exactly right."""
        return self.solved and self.prediction == self.flow.value

    def predict(self, value: float | str | Fraction) -> Game:
        """Fix the prediction.

        Raises
        ------
        InputError
            If something was pushed already, or the value is no number from 0 up.
        """
        if self.pushes:
            raise InputError("expected the prediction before the first push; start over to predict again.")
        return replace(self, prediction=exact(value))

    def push(self, path: Path) -> Game:
        """Push along a path.

        Raises
        ------
        InputError
            If nothing was predicted, or the path is not one of the residual graph.
        """
        self._check()
        return replace(self, flows=(*self.flows, self.flow.push(path)))

    def back(self) -> Game:
        """Take the last push back; the prediction stays."""
        return replace(self, flows=self.flows[:-1] or self.flows, shown=False) if self.pushes else self

    def finish(self) -> Game:
        """Let the computer push the rest."""
        self._check()
        return self if self.solved else replace(self, flows=(*self.flows, self.flow.push_all()), shown=True)

    def verdict(self) -> str:
        """How it ended, in a sentence; empty while it goes on."""
        if not self.solved or self.prediction is None:
            return ""
        paths = f"{self.pushes} {'path' if self.pushes == 1 else 'paths'}"
        how = "Shown" if self.shown else f"Solved with {paths}" if self.pushes else "Solved"
        said = "as you predicted" if self.right else f"you predicted {written(self.prediction)}"
        return f"{how}: the maximum flow is {written(self.flow.value)}, {said}."

    def _check(self) -> None:
        if self.prediction is None:
            raise InputError("expected a prediction first: how much of the concept can reach the video?")


def cut_in_words(cut: Cut, flow: Flow) -> str:
    """Which edges the minimum cut takes, and what its place means.

    Examples
    --------
    >>> from vico_lens.attribution.lab import presets
    >>> flow = Flow(presets["full_at_sink"].network, "red circle").push_all()
    >>> cut_in_words(flow.cut(), flow)[:50]
    'The minimum cut is a3 → video (1), 1 in all. That '
    """
    meaning = _MEANING[cut.saturated].format(concept=flow.concept)
    if not cut.edges:
        return f"No edge had to be cut: nothing leads from “{flow.concept}” to the video."
    edges = ", ".join(f"{tail} → {head} ({written(flow.edges[tail, head])})" for tail, head in cut.edges)
    return f"The minimum cut is {edges}, {written(cut.capacity)} in all. {meaning}"
