"""Time the whole forward on a GPU in two more ways: eagerly with its launches, and replayed as a CUDA graph."""

import statistics
import time

import torch
from torch import Tensor, nn

from attnscope.profiling.clocks import CudaClock, run
from attnscope.profiling.statistics import Samples
from attnscope.profiling.timing import measuring

RUNS = 20
WARMUP_ROUNDS = 3


def eager_seconds(module: nn.Module, x: tuple[Tensor, ...]) -> float:
    """Return the median wall time of a forward in seconds, from the call to the end of the last kernel.

    It includes the time in which the CPU launches kernels.
    """
    samples = []
    with measuring():
        for _ in range(WARMUP_ROUNDS + RUNS):
            torch.cuda.synchronize()
            start = time.perf_counter()
            module(*x)
            torch.cuda.synchronize()
            samples.append(time.perf_counter() - start)
    return statistics.median(samples[WARMUP_ROUNDS:])


def graph_seconds(module: nn.Module, x: tuple[Tensor, ...]) -> float | None:
    """Return the time of a forward in seconds when it is replayed as a CUDA graph, which needs one launch.

    The time is the interquartile mean over the replays, each after a flush of the L2 cache. None if the forward cannot be
    captured.
    """
    stream = torch.cuda.current_stream()
    try:
        with measuring(), torch.cuda.stream(stream):  # a failed capture does not restore the current stream
            side = torch.cuda.Stream()
            side.wait_stream(stream)
            with torch.cuda.stream(side):
                for _ in range(WARMUP_ROUNDS):
                    module(*x)
            stream.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                module(*x)
            clock = CudaClock()
            replays = [run(clock, graph.replay, []) for _ in range(WARMUP_ROUNDS + RUNS)][WARMUP_ROUNDS:]
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:
        return None  # some operations cannot be captured
    return Samples([replay.total for replay in replays]).interquartile_mean_s
