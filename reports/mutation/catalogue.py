"""All faults that a file can have, and the choice of those that are seeded."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

import numpy as np

from parity.reports.mutation import caches, conditions, contracts, masks, operators, weights
from parity.reports.mutation.cases import Case
from parity.reports.mutation.graphs import Fault, Graph

FINDERS = (weights.find, masks.find, caches.find, operators.find, conditions.find, contracts.find)
# Classes, and beginnings of names, of the faults that survived before the judge looked for weights in the file and
# tried long texts and batches of eight rows.
_SURVIVING_GROUPS = {masks.OPEN, masks.FILLS, conditions.CONDITIONS, contracts.CONTRACT}
# Class → how many of its faults a file gets for each fault of another class: these have most kinds, or survive most.
_TURNS = {conditions.CONDITIONS: 4, contracts.CONTRACT: 2}
_SURVIVING_NAMES = (
    "the last row",
    "rows from",
    "rows beyond",
    "cut to the last",
    "beyond 32",
    "keys from 33",
    "keys 32",
    "keys 16",
)


def is_of_surviving_kind(group: str, kind: str) -> bool:
    """Whether faults of this kind survived before."""
    return group in _SURVIVING_GROUPS or kind.startswith(_SURVIVING_NAMES)


def random_for(case: Case, seed: int) -> np.random.Generator:
    """A generator of random numbers, seeded for one file."""
    return np.random.default_rng([seed, zlib.crc32(case.name.encode())])


def faults_of(graph: Graph, case: Case, seed: int) -> list[Fault]:
    """One fault of each kind that the file can have; if several places are possible, one is drawn."""
    draw = random_for(case, seed)
    by_kind: dict[str, list[Fault]] = {}
    for find in FINDERS:
        for fault in find(graph, draw):
            by_kind.setdefault(f"{fault.group}: {fault.kind}", []).append(fault)
    return [faults[int(draw.integers(len(faults)))] for faults in by_kind.values()]


def choose(faults: Iterable[Fault], limit: int, uses: Counter[str], draw: np.random.Generator) -> list[Fault]:
    """The faults to seed: the least used kinds, from all classes in turn.

    Args:
        faults: one of each kind.
        limit: the number of faults to choose.
        uses: kind → how often it was seeded so far.
        draw: decides between kinds that were used equally often.
    """
    by_group: dict[str, list[Fault]] = {}
    for fault in faults:
        by_group.setdefault(fault.group, []).append(fault)
    for group, each in by_group.items():
        order = [each[int(place)] for place in draw.permutation(len(each))]
        by_group[group] = sorted(order, key=lambda fault: uses[f"{fault.group}: {fault.kind}"], reverse=True)
    chosen: list[Fault] = []
    while len(chosen) < limit and any(by_group.values()):
        for group, each in by_group.items():
            for _ in range(_TURNS.get(group, 1)):
                if each and len(chosen) < limit:
                    chosen.append(each.pop())
    return chosen
