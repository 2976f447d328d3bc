"""Run a function in several processes that can talk to each other (gloo, on the CPU)."""

import datetime
import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed as dist

context = multiprocessing.get_context("forkserver")
# Imported once, in the server from which all processes are forked.
context.set_forkserver_preload(["torch", "torch_geometric", "graphkd", "lightning"])


def run(world: int, function: Callable[..., Any], *arguments: Any, timeout: float = 60.0) -> list[Any]:
    """What ``function(*arguments)`` returns in each of ``world`` processes, in order of rank.

    The function stands at the top level of a module, and says where it is through ``torch.distributed``. A process that
    fails fails the test with its traceback; those that waited for it fail by themselves.

    Args:
        world: How many processes.
        function: What each runs.
        arguments: What it is called with, the same in each.
        timeout: Seconds that a process waits for another.
    """
    with TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_work, args=(rank, world, folder, timeout, function, arguments))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found = [_read(_result(folder, rank)) for rank in range(world)]
    failed = [f"process {rank}: {each}" for rank, each in enumerate(found) if not isinstance(each, list)]
    if failed:
        raise AssertionError("\n".join(failed))
    return [each[0] for each in found]


def _work(rank: int, world: int, folder: str, timeout: float, function: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=timeout),
    )
    try:
        result: Any = [function(*arguments)]
    except Exception:
        result = traceback.format_exc()
    torch.save(result, _result(folder, rank))
    if isinstance(result, list):
        dist.barrier()
        dist.destroy_process_group()


def _read(path: Path) -> Any:
    return torch.load(path, weights_only=False) if path.exists() else "ended without a word"


def _result(folder: str, rank: int) -> Path:
    return Path(folder) / f"{rank}.pt"
