"""Verbs by what they do to a thing's place, and the forms in which they stand."""

from __future__ import annotations

__all__ = ["CARRIERS", "FALLERS", "IDLE", "LIFTERS", "MOVERS", "RISERS", "STEADY", "THROWERS", "forms_of"]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOVERS = _set("""
    move go walk run roll slide fly float drift drive swim crawl hop jump dart dash glide sail slink travel race speed march
    gallop head come step skate ski surf ride scurry scamper shoot zoom cruise dive tumble slip stroll wander creep sneak inch
    scroll pedal cycle bike row paddle waddle trot sprint jog leap flutter hover blow swing bounce fall rise sweep skip
    slither rush hurry wheel coast swoop soar spiral stream flow pour drip back advance proceed veer shift sled tiptoe stagger
    limp canter parade wade trek hike stride prowl bound spin rotate
""")
"""They change the place of their subject; a word of direction behind them says where to."""

RISERS = _set("rise ascend climb")
FALLERS = _set("fall descend drop plunge plummet sink tumble")
"""They have a direction of their own, unless words say another."""

CARRIERS = _set("push pull drag carry roll drive ride lead tow haul chase follow steer sail row wheel")
"""They move their object along with their subject."""

THROWERS = _set("throw kick toss hit fling hurl bat shoot send launch slide blow bounce pass move flip")
"""They move their object away."""

LIFTERS = _set("lift raise hoist lower")

STEADY = _set("stay stand sit remain rest")
"""Their subject keeps its place."""

IDLE = _set("""
    look gaze stare glance watch peek turn face point lean tilt wave nod bow read write count see smile wake light set slow
    warm cool grow fill line show sign dress wrap zip curl clean build break close open give hold stop settle cheer calm heat
    dry end mix pile stack lay lie lock shut
""")
"""What words like "up" and "left" say behind them is no way through the picture."""

_IRREGULAR = {
    "ran": "run",
    "flew": "fly",
    "flown": "fly",
    "swam": "swim",
    "rose": "rise",
    "risen": "rise",
    "fell": "fall",
    "fallen": "fall",
    "drove": "drive",
    "driven": "drive",
    "rode": "ride",
    "ridden": "ride",
    "slid": "slide",
    "threw": "throw",
    "thrown": "throw",
    "blew": "blow",
    "blown": "blow",
    "swung": "swing",
    "shot": "shoot",
    "sank": "sink",
    "sunk": "sink",
    "went": "go",
    "came": "come",
    "stood": "stand",
    "sat": "sit",
    "sent": "send",
    "led": "lead",
    "crept": "creep",
    "leapt": "leap",
    "swept": "sweep",
    "lying": "lie",
    "flies": "fly",
}


def forms_of(verb: str) -> frozenset[str]:
    """What the plain form of a verb may be.

    >>> sorted(forms_of("running"))
    ['run', 'runn', 'runne', 'running']
    """
    word = verb.lower()
    found = {word, _IRREGULAR.get(word, word)}
    for ending in ("ing", "ed", "es", "s"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1:
            found |= {stem, *([f"{stem}e"] if ending != "s" else [])}
            if ending != "s" and len(stem) > 2 and stem[-1] == stem[-2]:
                found.add(stem[:-1])
            if ending in ("ed", "es") and stem.endswith("i"):
                found.add(f"{stem[:-1]}y")
    return frozenset(found)
