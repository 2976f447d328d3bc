"""What a page about a run shows, as one dictionary that JSON can hold; nothing here knows of HTML."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphkd import checks, metrics
from graphkd.inspection import packing
from graphkd.inspection.sides import MOST_NODES, evenly
from graphkd.inspection.terms import choices, series, term
from graphkd.snapshots import Snapshot, common_feature
from graphkd.typing import UNLABELLED
from graphkd.viz.inputs import by_class
from graphkd.viz.palette import class_colour, class_marker

NEIGHBOURS = 10
"""Nearest neighbours of a sample that student and teacher are compared by, at most."""

MOST_MISSED = 10
"""Samples that lose their neighbourhood, at most."""


def content(snapshots: Sequence[Snapshot], most_steps: int = 12) -> dict[str, Any]:
    """Everything that the page shows of some snapshots of one run.

    Args:
        snapshots: Of the same samples, in any order.
        most_steps: How many of them, spread evenly, the first and the last among them.

    Raises:
        ValueError: For no snapshots, for those of different samples, layers or terms, and for fewer than one step.

    >>> from graphkd import Distiller, losses
    >>> from graphkd.probe import Probe
    >>> from graphkd.snapshots import take
    >>> distiller = Distiller(torch.nn.Linear(3, 5), torch.nn.Linear(3, 5), criteria={"kd": losses.kd()})
    >>> shown = content([take(distiller, Probe(torch.randn(6, 3), torch.arange(6) % 2))])
    >>> shown["steps"], shown["samples"]["classes"], [term["name"] for term in shown["terms"]]
    ([{'step': 0, 'epoch': 0}], [0, 0, 0, 1, 1, 1], ['kd/kd'])
    """
    chosen = chosen_steps(snapshots, most_steps)
    last = chosen[-1]
    labels = last.labels.long()
    order = by_class(labels.numpy())
    shown = evenly(order, MOST_NODES)
    terms = [term(choice, labels) for choice in choices([each.comparisons for each in chosen])]
    overlap, missed = _neighbourhoods(chosen)
    for each in terms:
        each["measures"] += overlap
    # Those who lose their neighbourhood, and their neighbours, are shown whoever else is.
    seen = set(shown.tolist()).union(*(_samples(each) for each in missed["steps"]))
    kept = order if len(seen) == len(order) else np.array([i for i in order.tolist() if i in seen])
    return {
        "steps": [{"step": each.step, "epoch": each.epoch} for each in chosen],
        "saved": len(snapshots),
        "samples": {
            "count": len(labels),
            "index": kept.tolist(),
            "classes": labels[torch.from_numpy(kept)].tolist(),
            "sprite": None if last.pictures is None else packing.sprite(last.pictures[torch.from_numpy(kept)]),
        },
        "classes": _classes(terms, labels, last.class_names),
        "terms": terms,
        "first": _most_telling(terms),
        "cka": {"rows": last.layers[0], "columns": last.layers[1], "steps": [_numbers(each.cka) for each in chosen]},
        "missed": missed,
    }


def chosen_steps(snapshots: Sequence[Snapshot], most: int) -> list[Snapshot]:
    """At most so many of the snapshots, by step, spread evenly from the first to the last; of one, the last.

    Raises:
        ValueError: For no snapshots, those of different samples or layers, and fewer than one.
    """
    checks.at_least("most_steps", most, 1)
    if not snapshots:
        raise ValueError("a page needs at least one snapshot, got none")
    ordered = sorted(snapshots, key=lambda each: each.step)
    for each in ordered:
        if not torch.equal(each.labels, ordered[0].labels) or each.layers != ordered[0].layers:
            raise ValueError(
                f"needs snapshots of the same samples and layers, got others at step {each.step} than at step "
                f"{ordered[0].step}"
            )
    at = np.rint(np.linspace(len(ordered) - 1, 0, min(most, len(ordered)))).astype(int)[::-1]
    return [ordered[i] for i in at]


def _most_telling(terms: Sequence[dict[str, Any]]) -> int:
    """Which term to begin with: one with a plan and graphs, else one with a plan that is not the identity's."""

    def worth(place: int) -> tuple[bool, bool, bool]:
        each = terms[place]
        measured = {series["name"]: series["values"] for series in each["measures"]}
        settled = all(value == 1 for value in measured.get("mass on the true pair", [None]))
        return each["graphs"] is not None, each["plan"] is not None and not settled, each["plan"] is not None

    return max(range(len(terms)), key=worth)


def _neighbourhoods(chosen: Sequence[Snapshot]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """How well the student keeps its teacher's neighbourhoods at every step, and who loses most."""
    common = common_feature(chosen[0])
    nothing = {"feature": common and common[0], "k": 0, "steps": [[] for _ in chosen]}
    if common is None:
        return [], nothing
    name, theirs = common
    k = min(NEIGHBOURS, len(chosen[0].labels) - 1)
    overlaps, steps = [], []
    for each in chosen:
        student, teacher = each.student[name].float(), each.teacher[theirs].float()
        if not bool(student.isfinite().all() and teacher.isfinite().all()):
            overlaps.append(float("nan"))
            steps.append([])
            continue
        overlaps.append(float(metrics.neighbour_overlap(student, teacher, k).mean()))
        steps.append(_missed(student, teacher, k))
    what = f"Share of the teacher's {k} nearest samples, by cosine of {name!r}, that are the student's; for every term"
    return [series("neighbour overlap", overlaps, "share", what)], nothing | {"k": k, "steps": steps}


def _missed(student: Tensor, teacher: Tensor, k: int) -> list[dict[str, Any]]:
    found = metrics.most_missed(student, teacher, k, MOST_MISSED)
    parts = zip(*(part.tolist() for part in (found.index, found.overlap, found.teacher, found.student)), strict=True)
    return [
        {"sample": i, "kept": round(overlap * k), "teacher": theirs, "student": mine}
        for i, overlap, theirs, mine in parts
    ]


def _samples(missed: Sequence[dict[str, Any]]) -> set[int]:
    return {i for each in missed for i in (each["sample"], *each["teacher"], *each["student"])}


def _numbers(matrix: Tensor) -> list[list[float | None]]:
    return [[round(value, 3) if np.isfinite(value) else None for value in row] for row in matrix.tolist()]


def _classes(terms: Sequence[dict[str, Any]], labels: Tensor, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """How each class that occurs is called and looks, unlabelled last."""
    found = set(labels.tolist())
    for each in terms:
        if each["plan"] is not None:
            found.update(each["rows"]["classes"], each["columns"]["classes"])
    return [
        {"id": c, "name": _name(c, names), "colour": class_colour(c), "marker": class_marker(c)}
        for c in [*sorted(found - {UNLABELLED}), *({UNLABELLED} & found)]
    ]


def _name(index: int, names: Sequence[str] | None) -> str:
    """What a class is called; a data set that names fewer classes than it has still gets its page."""
    if index == UNLABELLED:
        return "unlabelled"
    return names[index] if names is not None and index < len(names) else str(index)
