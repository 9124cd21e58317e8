"""Runs of a sharded attention: on a fake process group in this process, and on processes with gloo or NCCL."""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from attnscope.attentions.spec import Spec
from attnscope.core.errors import AttnscopeError, UsageError, in_a_line, literal
from attnscope.core.interruption import uninterrupted
from attnscope.plan.mesh import Mesh, coordinates, distinct_ranks, ranks_of
from attnscope.reports.sharding import ShardingVerification
from attnscope.sharding.checking import RankCheck, check_rank, compare_values, largest
from attnscope.sharding.module import shard

LIMIT_S = 60.0
"""Seconds after which a run of processes ends."""
MOST_PROCESSES = 8
MOST_MACS = 5 * 10**9
"""The most MACs of an attention that runs on processes of this machine, in float64."""
MOST_ON_CPU = 10**8
"""The most MACs of a rank that runs on the CPU for its shapes. It takes less time than the import of torch's compiler,
which the first matmul on the meta device costs (torch 2.14)."""
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
"""The backend of torch.distributed for each device."""
NOT_ON_CPU = ("compile", "efficient", "flash", "flex")
"""Kernels that lack a bias or a backward on the CPU, or compile the recorder too; sdpa runs in place of them.
The letters, and with them the plan, are the same."""
TOLERANCE = 1e-10
"""The largest difference of values in float64."""


def verify_on_fake(spec: Spec, mesh: Mesh) -> ShardingVerification:
    """Run the part of each rank that may differ on torch's fake process group, and compare it with the plan.

    A large attention runs on the meta device, without values.

    Raises:
        UsageError: torch.distributed is in use.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    _check_unused()
    spec, kernel = _on_cpu(spec)
    numbers = [number_of(mesh, place) for place in distinct_ranks(mesh)]
    device = "cpu" if spec.plan().macs <= MOST_ON_CPU * ranks_of(mesh) else "meta"
    with one_thread(), torch.device(device):
        module = spec.build().eval().to(getattr(torch, spec.dtype))
        checks = [_on_fake(module, spec, mesh, rank, FakeStore()) for rank in numbers]
    return _together(f"a fake process group{kernel}", checks)


def _on_cpu(spec: Spec) -> tuple[Spec, str]:
    """Return a Spec whose kernel runs on the CPU, and words for the result if that is another kernel."""
    if spec.kernel not in NOT_ON_CPU:
        return spec, ""
    return replace(spec, kernel="sdpa"), f" with the kernel sdpa in place of {spec.kernel}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: others would wait for work longer than a small attention takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _on_fake(module: nn.Module, spec: Spec, mesh: Mesh, rank: int, store: Any) -> RankCheck:
    """Run the part of one rank on a fake process group."""
    dist.init_process_group("fake", rank=rank, world_size=ranks_of(mesh), store=store)
    try:
        sharded = shard(module, mesh, shape=spec.input_shape, spec=spec)
        dtype = getattr(torch, spec.dtype)
        inputs = [torch.empty(shape, dtype=dtype, requires_grad=True) for shape in sharded.input_shapes]
        return check_rank(sharded, inputs, rank)[0]
    except AttnscopeError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return RankCheck(rank, [f"the sharded module failed: {in_a_line(error)}"])
    finally:
        dist.destroy_process_group()


def verify_on_processes(spec: Spec, mesh: Mesh, limit_s: float = LIMIT_S, device: str = "cpu") -> ShardingVerification:
    """Run all ranks as processes, and compare them with the plan and, in float64, with one device.

    Args:
        spec: the attention.
        mesh: the axes of the mesh.
        limit_s: seconds after which the processes end.
        device: "cpu" for gloo, or "cuda" for NCCL, with one GPU for each rank.

    Raises:
        UsageError: there are too many ranks or too few GPUs, or the attention is too large.
        AttnscopeError: a rank failed, or did not end in time.
    """
    processes: Any = import_module("torch.multiprocessing")

    _check_unused()
    ranks, macs = ranks_of(mesh), spec.plan().macs
    if ranks > MOST_PROCESSES:
        raise UsageError(f"{{verify}} runs at most {MOST_PROCESSES} ranks (got {ranks}); remove it, or use fewer ranks")
    if device == "cuda" and ranks > torch.cuda.device_count():
        raise UsageError(f"NCCL needs one GPU for each of {ranks} ranks (found {torch.cuda.device_count()})")
    if macs > MOST_MACS:
        raise UsageError(f"{{verify}} runs at most {MOST_MACS:,} MACs in float64 (got {macs:,}); use a smaller input")
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # warns of each process that it ends
    spec, kernel = _on_cpu(spec) if device == "cpu" else (spec, "")
    with tempfile.TemporaryDirectory() as folder:
        with uninterrupted():  # a rank would print a traceback; it is ended below
            context = processes.start_processes(
                run_rank, args=(spec, mesh, folder, device), nprocs=ranks, join=False, start_method="spawn"
            )
        deadline = time.monotonic() + limit_s
        try:
            while not context.join(timeout=max(0.0, min(0.5, deadline - time.monotonic()))):
                if time.monotonic() > deadline:
                    raise AttnscopeError(f"the processes did not end within {limit_s:g} s; no result")
        except (processes.ProcessRaisedException, processes.ProcessExitedException) as error:
            line = str(error).strip().splitlines()[-1]
            raise AttnscopeError(f"rank {error.error_index} failed: {literal(line)}") from None
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
                process.join()
        checks = [RankCheck(**json.loads((Path(folder) / f"{rank}.json").read_text())) for rank in range(ranks)]
    return _together(f"{BACKENDS[device]}{kernel}", checks)


def run_rank(rank: int, spec: Spec, mesh: Mesh, folder: str, device: str = "cpu") -> None:
    """Run one rank as a process, and write its result to a file in the folder."""
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    place = torch.device(device, rank) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(place)
    ranks = ranks_of(mesh)
    store = dist.FileStore(str(Path(folder) / "store"), ranks)  # type: ignore[attr-defined]
    dist.init_process_group(BACKENDS[device], rank=rank, world_size=ranks, store=store)
    try:
        with place:
            check = compare_rank(rank, spec, mesh)
        (Path(folder) / f"{rank}.json").write_text(json.dumps(asdict(check)))
    finally:
        dist.destroy_process_group()
    os._exit(0)  # torch 2.14 rarely aborts while a gloo process ends, after Python has ended


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, which may have been killed, and end this one."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def compare_rank(rank: int, spec: Spec, mesh: Mesh) -> RankCheck:
    """Compare a rank of the current process group with its plan, and with the same attention on one device in float64."""
    torch.manual_seed(0)  # all ranks have the same parameters and the same input
    whole = spec.build().eval().double()
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in spec.input_shapes]
    y = whole(*inputs)
    grad = torch.randn_like(y)
    y.backward(grad)
    sharded = shard(whole, mesh, shape=spec.input_shape, spec=spec)
    parts = [sharded.part(x.detach(), number).requires_grad_() for number, x in enumerate(inputs)]
    check, made = check_rank(sharded, parts, rank, sharded.part_of_output(grad))
    gradients = [
        (own.grad, sharded.part(x.grad, number))
        for number, (own, x) in enumerate(zip(parts, inputs, strict=True))
        if own.grad is not None and x.grad is not None
    ]
    assert len(gradients) == len(inputs)
    compare_values(check, sharded, whole, (made, sharded.part_of_output(y.detach())), gradients)
    return check


def number_of(mesh: Mesh, place: Sequence[int]) -> int:
    """Return the number of the rank at a place of the mesh."""
    number = 0
    for axis, at in zip(mesh, place, strict=True):
        number = number * axis.ranks + at
    assert coordinates(mesh, number) == tuple(place)
    return number


def _check_unused() -> None:
    if dist.is_initialized():
        raise UsageError("torch.distributed must not be initialized for a verification; run it in another process")


def _together(how: str, checks: Sequence[RankCheck]) -> ShardingVerification:
    """Return the result of all ranks."""
    problems = list(dict.fromkeys(f"rank {check.rank}: {problem}" for check in checks for problem in check.problems))
    outputs = [check.output_error for check in checks if check.output_error is not None]
    gradients = [check.gradient_error for check in checks if check.gradient_error is not None]
    for what, errors in (("output", outputs), ("gradients", gradients)):
        if errors and not largest(errors) <= TOLERANCE:
            problems.append(
                f"the {what} differ from one device by {largest(errors):.1e}; at most {TOLERANCE:.0e} is rounding"
            )
    worst = [largest(errors) if errors else None for errors in (outputs, gradients)]
    return ShardingVerification(how, len(checks), not problems, problems, *worst)
