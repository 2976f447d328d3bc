"""Caches in place of the teachers that they were made with."""

from collections.abc import Mapping

from torch import Tensor

from graphkd.cache.store import TeacherCache
from graphkd.teachers import Teachers


def checked(given: TeacherCache | Mapping[str, TeacherCache] | None, teachers: Teachers) -> dict[str, TeacherCache]:
    """Caches by teacher, each made with this teacher and the features that are seen of it.

    Raises:
        ValueError: For a cache of no teacher beside the student, or made of other things, with what differs.

    >>> from torch import nn
    >>> checked(None, Teachers(nn.Linear(2, 4), nn.Linear(2, 4), None))
    {}
    """
    if given is None:
        return {}
    caches = dict(given) if isinstance(given, Mapping) else dict.fromkeys(teachers.names, given)
    for name, cache in caches.items():
        if name not in teachers.models:
            models = ", ".join(teachers.models) or "none"
            raise ValueError(f"a teacher cache needs a teacher beside the student, {models}, got one of {name!r}")
        cache.check_teacher(teachers.models[name], teachers.specs[name])
    return caches


def recalled(
    caches: Mapping[str, TeacherCache], index: Tensor | None, view: Tensor | int | None
) -> dict[str, dict[str, Tensor]]:
    """What caches say of a batch, by teacher.

    Args:
        caches: By teacher.
        index: Where the samples stand in the data set.
        view: Which version of each is seen; may be left out where there is one.

    Raises:
        ValueError: Without an index, and without a view where there are several.

    >>> recalled({}, None, None)
    {}
    """
    if not caches:
        return {}
    if index is None:
        raise ValueError("a teacher cache needs to know where samples stand in the data set, got no index")
    views = max(cache.views for cache in caches.values())
    if view is None and views > 1:
        raise ValueError(f"a teacher cache of {views} views needs to know which of them a batch is, got no view")
    return {name: cache.read(index, 0 if view is None else view) for name, cache in caches.items()}
