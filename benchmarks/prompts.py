"""How well the rules read prompts: objects found, false concepts, directions. ``python -m benchmarks.prompts FILE [--list]``.

FILE is a JSON list of ``{"category", "prompt", "objects"[, "object_1", "d_1", ...]}`` (the form of a public benchmark of composed
prompts, which is not ours to ship). An object counts as found if a phrase of its own ends with its words: "rabbit digs" is no
rabbit, and neither is one phrase for two objects. Without FILE only the prompts of `benchmarks.prompt_readings` are measured:
every thing and every direction of them was read by hand, so that what is found too much counts too.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.prompt_readings import DIRECTIONS, PHRASES
from vico_lens.cli.output import columns
from vico_lens.intervention.balancing.directions import directions_of
from vico_lens.vocabulary.concepts import Concept
from vico_lens.vocabulary.phrases import find_phrases

__all__ = ["DIRECTIONS", "PHRASES", "direction_scores", "objects_found", "phrase_scores"]

_WAYS = {"left": (0.0, -1.0), "right": (0.0, 1.0), "up": (-1.0, 0.0), "down": (1.0, 0.0), "still": (0.0, 0.0), "none": None}
_SINGULARS = {
    **{"geese": "goose", "children": "child", "wolves": "wolf", "mice": "mouse", "men": "man", "women": "woman", "deers": "deer"},
    **{"people": "person", "sheep": "sheep", "leaves": "leaf", "shelves": "shelf", "knives": "knife", "feet": "foot"},
}


@dataclass
class Scores:
    """Counts over prompts.

    Attributes
    ----------
    wanted : int
        Things, or directions, that the prompts hold.
    missed, false : int
        Of these not found; found beside them.
    opposite : int
        Directions that are wrong.
    faults : list of str
        One line a fault.
    """

    wanted: int = 0
    missed: int = 0
    false: int = 0
    opposite: int = 0
    faults: list[str] = field(default_factory=list)


def phrase_scores(readings: Mapping[str, Sequence[str]]) -> Scores:
    """Compare the noun phrases of prompts with those read by hand."""
    scores = Scores()
    for prompt, wanted in readings.items():
        found = [phrase.text for phrase in find_phrases(prompt)]
        missed, false = [t for t in wanted if t not in found], [t for t in found if t not in wanted]
        scores.wanted += len(wanted)
        scores.missed += len(missed)
        scores.false += len(false)
        scores.faults += [f"{prompt}: missed {missed}, false {false}"] if missed or false else []
    return scores


def direction_scores(readings: Mapping[str, Sequence[str]]) -> Scores:
    """Compare the directions of things with those read by hand (``"ball: left"``)."""
    scores = Scores()
    for prompt, told in readings.items():
        pairs = [entry.split(": ") for entry in told]
        concepts: list[Concept] = []
        begin = 0
        for name, _ in pairs:
            begin = prompt.index(name, begin)
            concepts.append(Concept(name, (len(concepts),), (begin, begin + len(name))))
            begin += len(name)
        for (name, way), found in zip(pairs, directions_of(prompt, concepts), strict=True):
            wanted = _WAYS[way]
            scores.wanted += wanted is not None
            scores.missed += wanted is not None and found is None
            scores.opposite += None not in (wanted, found) and wanted != found
            scores.false += wanted is None and found is not None
            scores.faults += [f"{prompt}: {name} {way}, got {found}"] if wanted != found else []
    return scores


def objects_found(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int, list[str]]]:
    """For each category: prompts all of whose objects are phrases of their own, prompts, and those where some is not."""
    scores: dict[str, list[tuple[bool, str]]] = defaultdict(list)
    for row in rows:
        phrases = [_plain(phrase.text) for phrase in find_phrases(row["prompt"])]
        objects = [_plain(re.split(r"\s(?:in|with|of|wearing|on)\s", text)[0]) for text in row["objects"]]
        good = all(any(_is_own(phrase, own, objects) for phrase in phrases) for own in objects)
        scores[row["category"]].append((good, f"{row['prompt']}: {[' '.join(phrase) for phrase in phrases]}"))
    return {
        name: (sum(good for good, _ in told), len(told), [t for good, t in told if not good]) for name, told in scores.items()
    }


def _is_own(phrase: Sequence[str], own: Sequence[str], objects: Sequence[Sequence[str]]) -> bool:
    rest = phrase[: len(phrase) - len(own)]
    return list(phrase[len(rest) :]) == list(own) and not any(set(other) <= set(rest) for other in objects if other != own)


def _plain(text: str) -> list[str]:
    """Words in the singular, without an article."""
    words = re.findall(r"[\w'-]+", text.lower())
    return [_singular(word) for word in (words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)]


def _singular(word: str) -> str:
    if word in _SINGULARS:
        return _SINGULARS[word]
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(?:ss|x|z|ch|sh)es$", word):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us")) else word


def directions_told(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Readings of the motions that rows of FILE name (``object_1``, ``d_1``, ...), in the form of `DIRECTIONS`."""
    told = {}
    for row in rows:
        pairs = [(row.get(f"object_{n}") or "", str(row.get(f"d_{n}") or "").removesuffix("wards")) for n in (1, 2)]
        entries = [f"{re.sub('^(a|an|the) ', '', name.lower())}: {way}" for name, way in pairs if name and way in _WAYS]
        if entries:
            told[row["prompt"].lower()] = entries
    return told


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompts", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="JSON list of prompts with their objects")
    parser.add_argument("--list", action="store_true", help="also print every fault, and all phrases of FILE to judge by eye")
    arguments = parser.parse_args()
    faults: list[str] = []
    table: list[list[object]] = []
    rows = json.loads(arguments.file.read_text(encoding="utf-8")) if arguments.file else []
    for name, (good, count, bad) in objects_found(rows).items():
        table.append([f"FILE, {name}: all objects found", f"{good} of {count}", f"{good / count:.1%}"])
        faults += bad
    own = phrase_scores(PHRASES)
    table.append(["own prompts: things missed", f"{own.missed} of {own.wanted}", f"{own.missed / own.wanted:.1%}"])
    table.append(["own prompts: false concepts", f"{own.false} beside {own.wanted}", f"{own.false / own.wanted:.1%}"])
    faults += own.faults
    for title, readings in (("FILE", directions_told(rows)), ("own prompts", DIRECTIONS)):
        if readings:
            scores = direction_scores(readings)
            table += [
                [f"{title}: directions {kind}", f"{count} of {scores.wanted}", f"{count / scores.wanted:.1%}"]
                for kind, count in (("opposite or other", scores.opposite), ("missed", scores.missed), ("invented", scores.false))
            ]
            faults += scores.faults
    print(columns([[str(cell) for cell in row] for row in table], ["measure", "count", "share"]))
    if arguments.list:
        print("\n".join(["", *faults]))
        print("\nPhrases of FILE:", ", ".join(sorted({phrase.text for row in rows for phrase in find_phrases(row["prompt"])})))


if __name__ == "__main__":
    main()
