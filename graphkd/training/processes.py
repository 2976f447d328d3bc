"""Runs of several processes: how long they wait for each other, and what is said when one is gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from graphkd import checks, parallel

TIMEOUT = "timeout"
"""The option's name among those of a trainer."""

LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "imed out", "Watchdog", "remote process")
"""What gloo and NCCL say of a process that is gone or does not answer."""


def with_timeout(options: dict[str, Any]) -> dict[str, Any]:
    """A trainer's options, where ``timeout`` says how many seconds processes wait for each other, for Lightning.

    It goes with the strategies ``ddp`` and ``ddp_find_unused_parameters_true``; 30 minutes if omitted.

    Raises:
        ValueError: For a time that is not above zero, and for another strategy.

    >>> with_timeout({"devices": 1})
    {'devices': 1}
    """
    if TIMEOUT not in options:
        return options
    options = dict(options)
    seconds, strategy = options.pop(TIMEOUT), options.get("strategy")
    checks.positive(TIMEOUT, seconds)
    checks.one_of("the strategy of a timeout", strategy, ("ddp", "ddp_find_unused_parameters_true"))
    unused = strategy != "ddp"
    return options | {"strategy": DDPStrategy(timeout=timedelta(seconds=seconds), find_unused_parameters=unused)}


def before_processes(what: str) -> None:
    """Raise where processes have found each other already, each of which has a share of the data.

    >>> before_processes("a teacher cache")
    """
    if parallel.world() > 1:
        raise ValueError(
            f"{what} needs all data in one process, got a share in each of {parallel.world()}, since a teacher was "
            "trained in them: start again now that its weights are kept, or train it first with graphkd train-teacher"
        )


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """Turn what the network says of a lost process into an error that says what happened.

    Raises:
        ConnectionError: With the network's own words behind.
    """
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())
        if any(word in said for word in LOST):
            raise ConnectionError(
                f"another process of the run ended or did not answer in time ({said[:200]})"
            ) from error
        raise
