"""Account for the memory that a forward holds."""

import threading
import weakref
from collections.abc import Callable
from typing import Any

from torch import nn

from attnscope.tracing.tensors import storage_of, tensors_in
from attnscope.tracing.tree import tensors_of


class Memory:
    """The memory that the forward holds, without parameters and inputs. A storage counts until its last reference ends.

    `is_known` is False after a tensor without a storage of its own, whose memory is unknown. Threads share one account.
    """

    def __init__(self, module: nn.Module) -> None:
        self.live = self.peak = 0
        self.is_known = True
        self.held: dict[int, weakref.ref[Any]] = {}
        self.lock = threading.RLock()  # a callback may run while its thread adds a tensor
        storages = map(storage_of, tensors_of(module))
        self.outside = {storage._cdata for storage in storages if storage is not None}

    def add(self, out: Any) -> None:
        """Add the tensors in a result, unless their storages count already."""
        for tensor in tensors_in(out):
            storage = storage_of(tensor)
            if storage is None:
                self.is_known = False
                continue
            key = storage._cdata
            with self.lock:
                if key in self.held or key in self.outside:
                    continue
                self.held[key] = weakref.ref(storage, self.freed(key, storage.nbytes()))
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)

    def freed(self, key: int, size: int) -> Callable[[Any], None]:
        """Return a callback that subtracts a storage."""

        def callback(_: Any) -> None:
            with self.lock:
                del self.held[key]
                self.live -= size

        return callback
