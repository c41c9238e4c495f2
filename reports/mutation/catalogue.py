"""All faults that a file can have, and which of them are seeded."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

import numpy as np

from parity.reports.mutation import caches, conditions, contracts, masks, operators, weights
from parity.reports.mutation.cases import Case
from parity.reports.mutation.graphs import Fault, Graph

FINDERS = (weights.find, masks.find, caches.find, operators.find, conditions.find, contracts.find)
# What survived when faults were seeded before there were an account of weights, long texts and batches of eight rows.
_SURVIVING_GROUPS = {masks.OPEN, masks.FILLS, conditions.CONDITIONS, contracts.CONTRACT}
# Classes of which each file gets more than one fault for one of the others: they have most kinds, or survive most.
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
    """Whether a kind is one of those that the judge let through before."""
    return group in _SURVIVING_GROUPS or kind.startswith(_SURVIVING_NAMES)


def random_for(case: Case, seed: int) -> np.random.Generator:
    """Random numbers that belong to a file."""
    return np.random.default_rng([seed, zlib.crc32(case.name.encode())])


def faults_of(graph: Graph, case: Case, seed: int) -> list[Fault]:
    """One fault of each kind that the file can have: where there are several places, one is drawn."""
    draw = random_for(case, seed)
    by_kind: dict[str, list[Fault]] = {}
    for find in FINDERS:
        for fault in find(graph, draw):
            by_kind.setdefault(f"{fault.group}: {fault.kind}", []).append(fault)
    return [faults[int(draw.integers(len(faults)))] for faults in by_kind.values()]


def choose(faults: Iterable[Fault], limit: int, uses: Counter[str], draw: np.random.Generator) -> list[Fault]:
    """Those that are seeded: of kinds that were used least, of every class as many as it has turns.

    Args:
        uses: kind → how often it was seeded so far.
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
