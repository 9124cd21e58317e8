"""Tests of sharded modules: what they run equals the plan, and their values are those of one device."""

import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from attnscope import networks
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.linear.spec import LinearSpec
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.nat.spec import NATSpec
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.attentions.separable.spec import SeparableSpec
from attnscope.attentions.spec import Spec
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.attentions.swin3d.spec import Swin3DSpec
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.attentions.xca.spec import XCASpec
from attnscope.core.errors import AttnscopeError, UsageError
from attnscope.plan.mesh import MeshAxis, parse_mesh, ranks_of
from attnscope.plan.sharding import ShardedPlan
from attnscope.sharding import verification
from attnscope.sharding.checking import RankCheck
from attnscope.sharding.module import shard
from attnscope.sharding.verification import verify_on_fake, verify_on_processes
from tests.sampling import some

SMALL = ViTSpec(tokens=21, dim=24, heads=4)
WINDOWS = SwinSpec(resolution=(14, 12), window=(4, 3), dim=24, heads=4, shift=True, batch=2)
CASES = [
    *[(replace(SMALL, batch=2), plan) for plan in ("tp=4", "sp=4", "ulysses=4", "ring=4", "context=4", "tp=2,ring=2")],
    *[(replace(SMALL, kernel="sdpa"), plan) for plan in ("tp=4", "ulysses=4", "context=4")],
    (HieraSpec(dim=24, heads=2, kernel="sdpa"), "windows=2x2"),
    *[(replace(SMALL, kv_heads=2, kernel="math"), plan) for plan in ("ulysses=4", "tp=2,context=2")],
    (ViTSpec(image=32, patch=8, dim=32, heads=4, rope="mixed", qk_norm=True, key_bias=False), "tp=4"),
    *[(WINDOWS, plan) for plan in ("windows=4", "windows=2x2", "tp=4")],
    (replace(WINDOWS, kernel="math"), "tp=2,windows=2"),
    *[
        (WINDOWS, plan)
        for plan in ("windows=1x4", "windows=4x1", "tp=2,windows=1x2", "tp=2,windows=2x1", "tp=4,windows=1")
    ],
    *[(SwinV2Spec(**WINDOWS.as_dict()), plan) for plan in ("windows=4", "tp=4")],
    (WINDOWS, "windows=2,tp=2"),
    (NATSpec(resolution=(14, 12), neighborhood=5, dilation=(2, 1), dim=24, heads=4), "rows=4"),
    (NATSpec(resolution=(13, 10), neighborhood=3, dim=24, heads=4), "rows=2,tp=2"),
    (MaxViTSpec(resolution=(16, 8), partition=4, dim=24, heads=4, grid=True, batch=2), "rows=4"),
    (MaxViTSpec(resolution=(16, 8), partition=4, dim=24, heads=4), "tp=2,windows=1x2"),
    (SAMSpec(dim=48, heads=4, resolution=20), "windows=2x2"),
    (HieraSpec(dim=24, heads=1), "windows=2x2"),
    (HieraSpec(dim=24, heads=2), "tp=2,windows=2"),
    *[
        (CrossSpec(dim=24, heads=4, tokens=10, keys=7, batch=2), f"{plan}=4")
        for plan in ("tp", "sp", "ulysses", "ring")
    ],
    (PVTSpec(dim=16, heads=2, resolution=(14, 8), reduction=2, batch=2), "ring=4"),
    (PVTSpec(dim=16, heads=4, kv_heads=2, resolution=8, reduction=2), "tp=2,context=2"),
    (PVTSpec(dim=16, heads=4, resolution=14, linear=True), "sp=4"),
    (PVTSpec(dim=16, heads=4, resolution=14, linear=True), "ulysses=4"),
    (Swin3DSpec(dim=24, heads=4, resolution=(4, 8, 8), window=(2, 4, 4), shift=True), "tp=4"),
    (XCASpec(dim=24, heads=4), "sp=4"),
    (LinearSpec(dim=16, head_dim=8, resolution=(14, 6), scales=(3, 7), qkv_bias=True, batch=2), "windows=4"),
    (SeparableSpec(dim=8, resolution=(14, 6), batch=2), "windows=4"),
    *[
        (TwinsSpec(dim=16, heads=4, resolution=(28, 14), batch=2), plan)
        for plan in ("context=4", "ulysses=4", "sp=4", "tp=2,context=2")
    ],
    *[(TwinsSpec(dim=16, heads=4, resolution=(49, 14)), plan) for plan in ("ring=4", "context=4")],
    (TwinsSpec(dim=16, heads=4, resolution=(13, 20)), "tp=4"),
    *[
        (CSWinSpec(dim=24, heads=8, resolution=(14, 10), stripe=2, batch=2), plan)
        for plan in ("tp=4", "tp=2,windows=2")
    ],
    (CSWinSpec(dim=24, heads=4, resolution=(14, 10), stripe=1, qkv_bias=False, kernel="math"), "windows=4"),
    (CSWinSpec(dim=24, heads=4, resolution=4, stripe=4), "tp=4"),
    (CSWinSpec(dim=24, heads=4, resolution=(8, 4), stripe=1), "windows=4x1"),
]
BLOCKS: list[tuple[str, dict[str, Any], str]] = [
    ("maxvit", {"image": (64, 64), "partition": (2, 2), "dim": 16, "heads": 2}, "tp=2"),
    ("maxvit", {"image": (64, 64), "partition": (2, 2), "dim": 16, "heads": 2, "block": 2}, "tp=2"),
    ("linear", {"dim": 16, "head_dim": 8, "resolution": (14, 6)}, "windows=2"),
    ("swin", {"image": (56, 56), "dim": 24, "heads": 2, "block": 2}, "windows=2"),
    ("swin", {"image": (56, 56), "dim": 24, "heads": 2, "block": 2}, "tp=2"),
    ("vit", {"image": (32, 32), "patch": (8, 8), "dim": 16, "heads": 2}, "sp=2"),
    ("vit", {"image": (32, 32), "patch": (8, 8), "dim": 16, "heads": 2}, "ring=2"),
    ("hiera", {"image": (64, 64), "stage": 2}, "windows=2"),
    ("xca", {"image": (64, 64), "dim": 16, "heads": 2}, "sp=2"),
    ("cswin", {"dim": 16, "heads": 2, "image": (224, 224)}, "windows=2"),
    ("pvt", {"image": (128, 128), "dim": 16}, "context=2"),
]
"""Blocks: the name, the values and the plan."""
ALONE = [
    *[(SMALL, f"{kind}=1") for kind in ("tp", "sp", "ulysses", "ring", "context")],
    *[(WINDOWS, plan) for plan in ("windows=1", "tp=1", "windows=1x1")],
    *[(LinearSpec(dim=32, resolution=8), plan) for plan in ("tp=1", "ring=1")],
    (XCASpec(dim=24, heads=4, resolution=5), "context=1"),
    (SeparableSpec(dim=16, resolution=8), "tp=1,windows=1"),
    (SMALL, "rows=1,tp=2"),
]


@pytest.mark.parametrize(("spec", "plan"), CASES + ALONE, ids=lambda each: each if isinstance(each, str) else each.name)
def test_a_run_on_a_fake_process_group_equals_the_plan(spec: Spec, plan: str) -> None:
    found = verify_on_fake(spec, parse_mesh(plan))
    assert found.problems == []
    assert found.agrees


@pytest.mark.parametrize("kernel", ["efficient", "flash", "flex", "compile"])
def test_a_kernel_that_does_not_run_on_the_cpu_is_verified_with_another(
    kernel: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """flash has no bias there, flex and efficient no backward, and torch's compiler warned of the recorder."""
    for spec in (
        replace(SMALL, kernel=kernel),
        replace(WINDOWS, kernel=kernel),
        networks.asked("vit", {"dim": 16, "heads": 2, "kernel": kernel}, "block"),
    ):
        found = verify_on_fake(spec, parse_mesh("tp=2"))
        assert found.agrees, found.problems
        assert found.how == f"a fake process group with the kernel sdpa in place of {kernel}"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "values", "plan"), BLOCKS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_block_on_a_fake_process_group_equals_the_plan(name: str, values: dict[str, Any], plan: str) -> None:
    assert verify_on_fake(networks.asked(name, values, "block"), parse_mesh(plan)).problems == []


def of_vit(draw: random.Random) -> tuple[Spec, str]:
    heads, ranks = draw.choice([(4, 2), (6, 3), (8, 4), (12, 4)])
    spec = ViTSpec(
        tokens=draw.randint(17, 60),
        dim=heads * draw.choice([4, 6]),
        heads=heads,
        kv_heads=draw.choice([None, ranks]),
        batch=draw.randint(1, 3),
        qkv_bias=draw.random() < 0.7,
        kernel=draw.choice(["eager", "math"]),
        dtype=draw.choice(["float32", "bfloat16"]),
    )
    return spec, f"{draw.choice(['tp', 'sp', 'ulysses', 'ring', 'context'])}={ranks}"


def of_windows(draw: random.Random) -> tuple[Spec, str]:
    window = draw.randint(2, 5), draw.randint(2, 5)
    counts = draw.choice([4, 7]), draw.choice([4, 6])
    resolution = tuple(p * count - draw.randint(0, p - 1) for p, count in zip(window, counts, strict=True))
    kind: type[Spec] = draw.choice([SwinSpec, SwinV2Spec])
    values: dict[str, Any] = {"resolution": resolution, "window": window, "dim": 16, "heads": 4}
    values |= {"shift": draw.random() < 0.7, "batch": draw.randint(1, 2)}
    return kind(**values), draw.choice(["windows=2", "windows=4", "windows=2x2", "windows=4x2", "tp=2,windows=2"])


def of_neighbourhoods(draw: random.Random) -> tuple[Spec, str]:
    spec = NATSpec(
        resolution=(draw.randint(15, 24), draw.randint(15, 20)),
        neighborhood=draw.choice([3, 5]),
        dilation=draw.choice([1, 2, 3]),
        dim=16,
        heads=4,
    )
    return spec, draw.choice(["rows=2", "rows=3", "tp=2,rows=2"])


def of_grids(draw: random.Random) -> tuple[Spec, str]:
    p, r = draw.choice([4, 6]), draw.choice([2, 4])
    spec = MaxViTSpec(resolution=(p * r, 8), partition=(p, 4), dim=16, heads=4, grid=draw.random() < 0.7)
    return spec, draw.choice(["rows=2", "tp=4", "windows=2x2"])


def of_other_keys(draw: random.Random) -> tuple[Spec, str]:
    ranks, reduction = draw.choice([2, 3, 4]), draw.choice([1, 2])
    values: dict[str, Any] = {"dim": 24, "heads": 12, "batch": draw.randint(1, 2), "kv_heads": draw.choice([None, 12])}
    rows = reduction * draw.choice([2 * ranks, 2 * ranks - 1])
    specs = [
        CrossSpec(**values, tokens=draw.randint(13, 30), keys=draw.randint(13, 30)),
        PVTSpec(**values, resolution=(rows, 4), reduction=reduction),
    ]
    return draw.choice(specs), f"{draw.choice(['tp', 'sp', 'ulysses', 'ring', 'context'])}={ranks}"


def of_stripes(draw: random.Random) -> tuple[Spec, str]:
    stripe = draw.choice([1, 2, 3])
    spec = CSWinSpec(
        resolution=(stripe * draw.randint(4, 7), stripe * draw.randint(4, 7)),
        stripe=stripe,
        dim=24,
        heads=draw.choice([4, 12]),
        batch=draw.randint(1, 2),
        qkv_bias=draw.random() < 0.5,
    )
    return spec, draw.choice(["windows=2", "rows=2", "tp=2", "tp=2,windows=2"])


def of_sums(draw: random.Random) -> tuple[Spec, str]:
    ranks, rows = draw.choice([2, 3, 4]), draw.choice([7, 8, 11])
    values: dict[str, Any] = {"dim": 16, "batch": draw.randint(1, 2), "qkv_bias": draw.random() < 0.5}
    specs = [
        LinearSpec(**values, resolution=(rows, 5), head_dim=8, scales=draw.choice([(3,), (5,), (3, 5), (7, 3)])),
        SeparableSpec(**values, resolution=(2 * rows, 6), patch=(2, draw.choice([1, 2, 3]))),
    ]
    return draw.choice(specs), f"windows={ranks}"


DRAWS = [of_vit, of_windows, of_neighbourhoods, of_grids, of_other_keys, of_sums, of_stripes]


@pytest.mark.parametrize("seed", some(range(30), 10))
@pytest.mark.parametrize("kind", DRAWS)
def test_random_specs_run_as_planned(kind: Callable[[random.Random], tuple[Spec, str]], seed: int) -> None:
    spec, plan = kind(random.Random(seed))
    assert verify_on_fake(spec, parse_mesh(plan)).problems == []


def test_a_difference_from_the_plan_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnscope.sharding.module.moved", lambda x, exchange, ranks: x)
    found = verify_on_fake(SMALL, parse_mesh("tp=2"))
    assert not found.agrees
    assert "rank 0: forward: the plan has all-reduce of 2,016 B 1× more" in found.problems


def end_rank(problems: list[str]) -> None:
    """End the process of a rank, which fails if there are problems."""
    dist.destroy_process_group()
    assert not problems, "\n".join(problems)
    os._exit(0)  # torch 2.14 rarely aborts while a gloo process ends, after Python has ended


def run_cases(rank: int, folder: str) -> None:
    """Compare all cases with one device, as rank `rank` of four."""
    dist.init_process_group("gloo", rank=rank, world_size=4, store=dist.FileStore(f"{folder}/store", 4))
    torch.set_num_threads(1)
    problems = []
    for number, (spec, plan) in enumerate(CASES):
        check: RankCheck = verification.compare_rank(rank, spec, parse_mesh(plan))
        errors = [check.output_error, check.gradient_error]
        if check.problems or not all(error is not None and error < 1e-10 for error in errors):
            problems.append(f"{number} {spec.name} {plan}: {check}")
    end_rank(problems)


def run_blocks(rank: int, folder: str) -> None:
    """Compare all blocks with one device, as rank `rank` of two."""
    dist.init_process_group("gloo", rank=rank, world_size=2, store=dist.FileStore(f"{folder}/store", 2))
    torch.set_num_threads(1)
    problems = []
    for name, values, plan in BLOCKS:
        check = verification.compare_rank(rank, networks.asked(name, values, "block"), parse_mesh(plan))
        errors = [check.output_error, check.gradient_error]
        if check.problems or not all(error is not None and error < 1e-10 for error in errors):
            problems.append(f"{name} {plan}: {check}")
    end_rank(problems)


def test_outputs_and_gradients_of_blocks_are_those_of_one_device(tmp_path: Any) -> None:
    torch.multiprocessing.spawn(run_blocks, args=(str(tmp_path),), nprocs=2)


def test_a_spec_of_a_block_is_pickled() -> None:
    spec = networks.asked("linear", {"dim": 16, "head_dim": 8}, "block")
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_outputs_and_gradients_are_those_of_one_device(tmp_path: Any) -> None:
    torch.multiprocessing.spawn(run_cases, args=(str(tmp_path),), nprocs=4)


def run_random(rank: int, folder: str) -> None:
    """Compare random Specs with one device, as rank `rank` of two."""
    dist.init_process_group("gloo", rank=rank, world_size=2, store=dist.FileStore(f"{folder}/store", 2))
    torch.set_num_threads(1)
    drawn = [draw(random.Random(seed)) for seed in range(100, 130) for draw in DRAWS]
    cases = [(spec, plan) for spec, plan in drawn if ranks_of(parse_mesh(plan)) == 2][:30]
    assert len(cases) == 30
    problems = []
    for spec, plan in cases:
        check = verification.compare_rank(rank, spec, parse_mesh(plan))
        errors = [check.output_error, check.gradient_error]
        if check.problems or not all(error is not None and error < 1e-10 for error in errors):
            problems.append(f"{spec} {plan}: {check}")
    end_rank(problems)


def test_outputs_and_gradients_of_random_specs_are_those_of_one_device(tmp_path: Any) -> None:
    torch.multiprocessing.spawn(run_random, args=(str(tmp_path),), nprocs=2)


def test_a_value_that_is_not_a_number_on_one_rank_is_a_difference() -> None:
    checks = [RankCheck(rank, [], 0.0, error) for rank, error in enumerate((0.0, float("nan")))]
    found = verification._together("gloo", checks)
    assert found.problems == ["the gradients differ from one device by nan; at most 1e-10 is rounding"]


@pytest.mark.cuda
@pytest.mark.parametrize(("spec", "plan"), CASES + ALONE, ids=lambda each: each if isinstance(each, str) else each.name)
def test_a_run_with_nccl_equals_the_plan_and_one_device(spec: Spec, plan: str) -> None:
    mesh = parse_mesh(plan)
    ranks, gpus = ranks_of(mesh), torch.cuda.device_count()
    if ranks > gpus:
        pytest.skip(f"{ranks} ranks need as many GPUs, and this machine has {gpus}")
    assert verify_on_processes(replace(spec, dtype="float64"), mesh, device="cuda").problems == []


@pytest.mark.skipif(torch.cuda.device_count() >= 8, reason="the machine has a GPU for each rank")
def test_nccl_needs_a_gpu_for_each_rank() -> None:
    with pytest.raises(UsageError, match=r"NCCL needs one GPU for each of 8 ranks"):
        verify_on_processes(replace(SMALL, heads=8), parse_mesh("tp=8"), device="cuda")


def test_processes_that_do_not_end_in_time_are_killed() -> None:
    with pytest.raises(AttnscopeError, match=r"did not end within 0\.1 s"):
        verify_on_processes(SMALL, parse_mesh("tp=2"), limit_s=0.1)
    assert multiprocessing.active_children() == []


def test_a_rank_that_fails_is_one_line() -> None:
    with pytest.raises(AttnscopeError, match=r"rank [012] failed: ") as error:
        verify_on_processes(SMALL, parse_mesh("tp=3"))  # of 4 heads
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []


def started(program: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a program that verifies on two ranks; return it and the ids of its ranks."""
    command = [sys.executable, "-c", f"from tests.test_sharded_modules import *; {program}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        command = ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        ranks = [int(line.split()[0]) for line in listed if "spawn_main" in line]
        if len(ranks) == 2:
            return process, ranks
        time.sleep(0.1)
    raise AssertionError("no ranks were started")


VERIFY = 'verify_on_processes(SMALL, parse_mesh("tp=2"), limit_s={})'


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes as on Linux")
@pytest.mark.parametrize(
    ("sent", "limit_s", "line"),
    [
        ("SIGKILL", 60, r"rank [01] failed: process [01] terminated with signal SIGKILL"),
        ("SIGSTOP", 10, r"the processes did not end within 10 s; no result"),
    ],
)
def test_a_rank_that_a_signal_ends_or_stops_is_one_line(sent: str, limit_s: int, line: str) -> None:
    process, ranks = started(VERIFY.format(limit_s))
    os.kill(ranks[0], signal.Signals[sent])
    _, errors = process.communicate(timeout=60)
    assert re.fullmatch(rf"attnscope\.core\.errors\.AttnscopeError: {line}", errors.decode().strip().splitlines()[-1])
    assert not any(map(is_running, ranks))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes as on Linux")
def test_ranks_leave_ctrl_c_to_the_process_that_started_them() -> None:
    """A terminal sends it to all of them, and a rank that imports torch would print a traceback."""
    process, ranks = started(VERIFY.format(60))
    for rank in ranks:
        os.kill(rank, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes as on Linux")
def test_ranks_end_with_the_process_that_started_them() -> None:
    process, ranks = started(f"signal.signal(signal.SIGINT, signal.SIG_IGN); {VERIFY.format(60)}")
    stopped, waiting = ranks
    try:
        os.kill(stopped, signal.SIGSTOP)
        process.kill()
        process.wait(timeout=30)
        assert process.stderr is not None
        process.stderr.close()
        deadline = time.monotonic() + 30
        while is_running(waiting):  # it would wait half an hour for the rank that is stopped
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(stopped, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Return whether a process has not ended."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_a_verification_has_limits() -> None:
    with pytest.raises(UsageError, match="at most 8 ranks"):
        verify_on_processes(replace(SMALL, heads=12), parse_mesh("tp=12"))
    with pytest.raises(UsageError, match="MACs"):
        verify_on_processes(ViTSpec(tokens=10_000), parse_mesh("tp=2"))


def test_shard_explains_a_mistake() -> None:
    with pytest.raises(UsageError, match="must be an attention of attnscope"):
        shard(nn.Linear(2, 2), "tp=2")
    with pytest.raises(UsageError, match="no dropout"):
        shard(replace(SMALL, proj_drop=0.1).build(), "tp=2")
    with pytest.raises(UsageError, match="must be initialized"):
        shard(SMALL.build(), "tp=2")
    for plan in (3, None, ("tp=2",), ()):
        with pytest.raises(UsageError, match=r"plan must be a text, such as 'tp=4'"):
            shard(SMALL.build(), plan)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tp and sp both cut the heads"):
        shard(SMALL.build(), (MeshAxis("tp", 2), MeshAxis("sp", 2)))
    with pytest.raises(UsageError, match="12 heads"):
        ShardedPlan.of(ViTSpec().plan(), parse_mesh("tp=5"), ViTSpec().neighbourhood)


def test_a_mesh_of_torch_has_the_axes_of_the_plan() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=3, world_size=4, store=FakeStore())
    try:
        module = replace(WINDOWS, batch=1).build()
        sharded = shard(module, "tp=2,windows=2", init_device_mesh("cpu", (2, 2)))
        assert sharded.place == (1, 1)
        assert sharded.input_shape == (1, 6, 12, 24)
        assert sharded.part(torch.randn(1, 14, 12, 24)).shape == (1, 6, 12, 24)
        with pytest.raises(UsageError, match="mesh must have the shape"):
            shard(module, "tp=2,windows=2", init_device_mesh("cpu", (4,)))
        with pytest.raises(UsageError, match=r"needs 2 ranks \(got 4\)"):
            shard(module, "tp=2")
        with pytest.raises(UsageError, match=r"must have the shape \(1, 6, 12, 24\)"):
            sharded(torch.randn(1, 14, 12, 24))
        with pytest.raises(UsageError, match="shape must be"):
            shard(module, "tp=2,windows=2", shape=(1, 14, 24))
        with pytest.raises(UsageError, match=r"mesh must be a DeviceMesh \(got 4\)"):
            shard(module, "tp=2,windows=2", 4)  # type: ignore[arg-type]
        for cut in (sharded.part, sharded.part_of_output):  # a larger grid was cut as if it ended earlier
            with pytest.raises(UsageError, match=r"must have the shape \(1, 14, 12, 24\) \(got \(1, 28, 12, 24\)\)"):
                cut(torch.randn(1, 28, 12, 24))
            with pytest.raises(UsageError, match=r"\(got str\)"):
                cut("x")  # type: ignore[arg-type]
        wide = shard(module, "tp=2,windows=2", shape=(2, 28, 12, 24))
        assert wide.input_shape == (2, 12, 12, 24)
    finally:
        dist.destroy_process_group()
