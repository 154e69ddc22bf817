"""Where the words of a prompt send each concept: "a red circle moving right" sends the circle to the right of the picture.

A wrong direction is worse than none. So a verb steers only what it moves (a dog that throws a ball left stays), particles steer
only behind verbs of movement ("waking up" steers nothing), and words that contradict each other ("left, then right") none at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from vico_lens.intervention.balancing.movement import CARRIERS, FALLERS, IDLE, LIFTERS, MOVERS, RISERS, STEADY, THROWERS, forms_of
from vico_lens.intervention.balancing.paths import NAMED, Direction, direction_of_path, directions_in
from vico_lens.vocabulary.concepts import Concept
from vico_lens.vocabulary.phrases import Phrase, find_phrases, words_of

__all__ = ["Direction", "direction_of_motion", "directions_of"]

_UP, _DOWN, _STILL = (-1.0, 0.0), (1.0, 0.0), (0.0, 0.0)
_STAY = re.compile(r"^\W*(?:perfectly |completely )?(?:still|motionless|in place|stationary)\b")
_PRONOUNS = frozenset(("it", "he", "she", "they"))
_AUXILIARY = ("is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "can", "will", "not")
_LINKING = ("who", "which", "that", "both", "all", "each", "also", "then", "just", "now")
_BETWEEN = frozenset((*_PRONOUNS, *_AUXILIARY, *_LINKING))


def direction_of_motion(motion: str) -> Direction | None:
    """Direction that a motion phrase gives to what moves, None if it gives none.

    Examples
    --------
    >>> direction_of_motion("moving right"), direction_of_motion("falling"), direction_of_motion("dancing")
    ((0.0, 1.0), (1.0, 0.0), None)
    >>> direction_of_motion("waking up"), direction_of_motion("rolls left, then right")
    (None, None)
    """
    spans = words_of(motion)
    return _of_subject(motion[slice(*spans[0])], motion[spans[0][1] :], moved=False) if spans else None


def directions_of(prompt: str, concepts: Sequence[Concept]) -> tuple[Direction | None, ...]:
    """Direction of every concept, by the verbs that it is the subject of, or the object of if they move their object.

    Nouns joined by "and" share the motion that follows them ("a dog and a cat running left").

    Parameters
    ----------
    prompt : str
        English text.
    concepts : sequence of Concept
        Their `span` says where they stand in it.

    Returns
    -------
    tuple
        One entry a concept, None where the prompt names no direction for it, or several that differ.

    Examples
    --------
    >>> ball, cat = Concept("red ball", (2, 3), (2, 10)), Concept("cat", (7,), (28, 31))
    >>> directions_of("a red ball moving right and a cat asleep", [ball, cat])
    ((0.0, 1.0), None)
    """
    phrases = find_phrases(prompt, ("noun", "motion"))
    spans = [(phrase.start, phrase.stop) for phrase in phrases]
    phrases += [
        Phrase(prompt[slice(*span)], *span, role="subject")
        for span in {concept.span for concept in concepts}
        if all(span[1] <= start or stop <= span[0] for start, stop in spans)
    ]
    told: dict[Phrase, list[Direction | None]] = {}
    for clause in _clauses(prompt, sorted(phrases, key=lambda phrase: phrase.start)):
        for phrase, direction in clause.told():
            told.setdefault(phrase, []).append(direction)
    return tuple(_agreed(told, concept.span) for concept in concepts)


def _agreed(told: dict[Phrase, list[Direction | None]], span: tuple[int, int]) -> Direction | None:
    found = [d for phrase, given in told.items() if phrase.start < span[1] and span[0] < phrase.stop for d in given]
    named = {direction for direction in found if direction is not None}
    return named.pop() if len(named) == 1 else None


@dataclass
class _Clause:
    """A verb with what it is about, and the text that may say where to."""

    verb: str
    subjects: list[Phrase]
    tail: str
    objects: list[Phrase] = field(default_factory=list)
    negated: bool = False

    def told(self) -> list[tuple[Phrase, Direction | None]]:
        """Direction of each thing that the verb moves."""
        if self.negated:
            return []
        forms = forms_of(self.verb)
        if "respectively" in self.tail:
            each = [NAMED[word] for word in re.findall(r"\b(left|right|up|down)(?:wards?)?\b", self.tail)]
            return list(zip(self.subjects, each, strict=True)) if len(each) == len(self.subjects) else []
        found: list[tuple[Phrase, Direction | None]] = []
        if self.objects and not forms.isdisjoint(CARRIERS | THROWERS | LIFTERS | FALLERS):
            direction = direction_of_path(self.tail, particle=True)
            if direction is None and not forms.isdisjoint(LIFTERS):
                direction = _DOWN if "lower" in forms else _UP
            if direction is None and not forms.isdisjoint(FALLERS):
                direction = _DOWN
            found += [(thing, direction) for thing in self.objects]
            if forms.isdisjoint(CARRIERS):
                return found
        moved = not self.objects and self.verb.endswith(("ed", "en", "wn", "ne"))
        direction = _of_subject(self.verb, self.tail, moved=moved)
        return found + [(subject, direction) for subject in self.subjects]


def _of_subject(verb: str, tail: str, *, moved: bool) -> Direction | None:
    """Direction that a verb and what follows it give its subject; `moved`: something is done to it ("a ball kicked left")."""
    forms = forms_of(verb)
    moving = not forms.isdisjoint(MOVERS | RISERS | FALLERS | CARRIERS | (THROWERS | LIFTERS if moved else frozenset()))
    phrasal = re.match(r"\s*(up|down|off|out|over|in|on|away|back)\b", tail)
    if not forms.isdisjoint(IDLE) or _is_phrasal(forms, phrasal, tail):
        return None
    if moved and not moving:
        return None  # "a wall painted from left to right"
    if not forms.isdisjoint(STEADY):
        if phrasal and phrasal[1] in ("up", "down"):
            return _UP if "stand" in forms and phrasal[1] == "up" else None
        return _STILL
    if moving and _STAY.match(tail):
        return _STILL
    several = set(directions_in(tail))
    direction = direction_of_path(tail, particle=moving)
    if direction is not None or (moving and len(several) > 1) or re.search(r"\b(back and forth|up and down|in circles)\b", tail):
        return direction
    if not forms.isdisjoint(RISERS) and not ("climb" in forms and _CLIMBS_ELSEWHERE.match(tail)):
        return _UP
    if not forms.isdisjoint(FALLERS) and not ("fall" in forms and _FALLS_OTHERWISE.match(tail)):
        return _DOWN
    if moved and not forms.isdisjoint(LIFTERS):
        return _DOWN if "lower" in forms else _UP
    return None


_CLIMBS_ELSEWHERE = re.compile(r"\s*(into|out|over|in|through|onto|inside)\b")
_FALLS_OTHERWISE = re.compile(r"\s*(asleep|in love|behind|apart|silent|in line|ill|for)\b")
_ROLLED = re.compile(r"\s+(?:a|an|the|his|her|its|their)\s+(?:\w+\s+)?(?:carpet|rug|mat|sleeves?|map|paper|dough)\b")


def _is_phrasal(forms: frozenset[str], particle: re.Match[str] | None, tail: str) -> bool:
    """Whether verb and particle mean something else than the way: "speeding up", "rolls up a carpet"."""
    if particle is None or particle[1] not in ("up", "down"):
        return False
    rest = tail[particle.end() :]
    if not forms.isdisjoint({"blow", "pull", "pick", "wash", "pass", "back"}):
        return True
    if "speed" in forms:  # but "speeds down a slope"
        return re.match(r"\s+(?:a|an|the|its)\b", rest) is None
    if "roll" in forms:
        return _ROLLED.match(rest) is not None
    return not forms.isdisjoint({"come", "go", "run"}) and re.match(r"\s+(?:with|against|to)\b", rest) is not None


def _clauses(prompt: str, phrases: Sequence[Phrase]) -> list[_Clause]:
    """Cut a prompt into verbs, each with its subjects, its objects and the text up to the next one's subject."""
    clauses: list[_Clause] = []
    verbs = [index for index, phrase in enumerate(phrases) if phrase.kind == "motion"]
    groups = {index: _subjects(prompt, phrases, index) for index in verbs}
    for place, index in enumerate(verbs):
        phrase, subjects = phrases[index], groups[index]
        before = prompt[phrases[index - 1].stop if index else 0 : phrase.start]
        if not subjects and clauses and _continues(before):
            subjects = clauses[-1].subjects
        word = prompt[slice(*_first_word(prompt, phrase))]
        stop = len(prompt)
        if place + 1 < len(verbs):
            coming = groups[verbs[place + 1]]
            stop = min([phrases[verbs[place + 1]].start, *(subject.start for subject in coming)])
        begin = phrase.start + len(word)
        tail = re.split(r"[.;\n]|\b(?:while|whilst|when|as)\b", prompt[begin:stop].lower())[0]
        objects = [
            other
            for other in phrases[index + 1 :]
            if other.kind == "noun" and other.start < begin + len(tail) and _is_direct(prompt[begin : other.start])
        ]
        clauses.append(_Clause(word, subjects, tail, objects, bool(re.search(r"\b(not|never|without)\b", before.lower()))))
    return clauses


def _first_word(prompt: str, phrase: Phrase) -> tuple[int, int]:
    start, stop = words_of(phrase.text)[0]
    return phrase.start + start, phrase.start + stop


_DIRECT = re.compile(
    r"^(?:\s+(?:a|an|the|its|his|her|their|my|your|one|two|three|four|five|some|small|big|large|tiny|little))*\s+$"
)


def _is_direct(between: str) -> bool:
    """Whether a noun stands right behind the verb, with nothing but its determiner between."""
    return _DIRECT.match(between.lower()) is not None


def _continues(between: str) -> bool:
    """Whether a verb without a noun before it has the subject of the verb before: "jumps and runs", "It runs"."""
    words = [between[start:stop].lower() for start, stop in words_of(between)]
    if "," in between or (words and words[-1] in {"and", "then"}):
        return re.search(r"[.;!?]", between) is None
    return all(word in _BETWEEN or word in {"and", "but"} or word.endswith("ly") for word in words[-3:]) or bool(
        words and words[-1] in _PRONOUNS
    )


def _subjects(prompt: str, phrases: Sequence[Phrase], index: int) -> list[Phrase]:
    """Nouns right before a verb, those joined to them by "and" too."""
    if not index or phrases[index - 1].kind != "noun":
        return []
    between = prompt[phrases[index - 1].stop : phrases[index].start]
    words = [between[start:stop].lower() for start, stop in words_of(between)]
    if words and words[-1] in _PRONOUNS:
        return []
    inserted = between.strip() == "," and all(
        phrase.kind == "noun" for phrase in phrases[:index]
    )  # "two trucks, moving left, pass"
    if (
        re.search(r"[.;!?,]", between)
        and not inserted
        and not (words and words[0] in {"who", "which", "that", "both", "all", "each"})
    ):
        return []
    if any(not (word in _BETWEEN or word.endswith("ly")) for word in words) and not _is_place(between):
        return []
    verb = phrases[index].text.split()[0].lower()
    last = index - 1
    if not verb.endswith(("ing", "ed")):  # a finite verb is not of "hat" in "a girl wearing a hat runs"
        while last > 0 and (
            phrases[last].kind == "motion" or phrases[last].role == "setting" or _after_participle(phrases, last)
        ):
            last -= 1
    found = [phrases[last]]
    for earlier, later in zip(phrases[last - 1 :: -1] if last else [], phrases[last:0:-1], strict=False):
        joint = prompt[earlier.stop : later.start].lower()
        words = [joint[start:stop] for start, stop in words_of(joint)]
        single = verb.endswith("s") and not verb.endswith("ss")
        if (
            earlier.kind != "noun"
            or earlier.role == "setting"
            or single
            or not (words[:1] == ["and"] or joint.strip().startswith(","))
        ):
            break
        if set(words) & {"while", "as", "when"} or _after_verb(phrases, earlier):
            break
        found.insert(0, earlier)
    return found


def _after_participle(phrases: Sequence[Phrase], place: int) -> bool:
    before = phrases[place - 1]
    return before.kind == "motion" and before.text.split()[0].lower().endswith(("ing", "ed"))


def _after_verb(phrases: Sequence[Phrase], phrase: Phrase) -> bool:
    place = phrases.index(phrase)
    return place > 0 and phrases[place - 1].kind == "motion"


def _is_place(between: str) -> bool:
    """Whether the words between a noun and its verb only say where it is: "a ball on the left moving right"."""
    return (
        re.fullmatch(
            r"\s+(?:on|at|in|to)\s+the\s+(?:far\s+)?(?:left|right|top|bottom|middle|background|foreground)(?:\s+side)?\s*",
            between,
        )
        is not None
    )
