"""Check of an attention's module as a torch module: it can be copied, pickled and trained."""

import copy
import pickle

import torch

from attnscope.attentions.spec import Spec
from attnscope.testing.comparison import built, fail


def hold_module(spec: Spec) -> None:
    """Check that the module can be copied, pickled and trained, with a gradient for every parameter.

    Raises:
        AssertionError: if the output or a gradient is not finite, the dtype changes, a copy computes another output, or
            a gradient is missing.
    """
    with built(spec) as (module, x):
        with torch.no_grad():
            result = module(*x)
            if result.dtype != x[0].dtype:
                fail(
                    spec, "dtype", "the output", x[0].dtype, result.dtype, "a tensor of another dtype inside the module"
                )
            if not result.isfinite().all():
                fail(spec, "numbers", "the output", "finite", "not finite", "a value that overflows this dtype")
            for how, other in (("deepcopy", copy.deepcopy(module)), ("pickle", pickle.loads(pickle.dumps(module)))):
                if not torch.equal(other(*x), result):
                    hint = "all state of the module must be a parameter, a buffer or a plain attribute"
                    fail(spec, f"output after {how}", "the module", "the same", "another one", hint)
        inputs = {f"input {number}": tensor.requires_grad_() for number, tensor in enumerate(x)}
        module.train()(*x).float().square().sum().backward()
        for name, tensor in {**dict(module.named_parameters()), **inputs}.items():
            if tensor.grad is None:
                fail(spec, "gradient", name, "one", None, "forward does not use it, or detaches it")
            elif not tensor.grad.isfinite().all():
                fail(spec, "gradient", name, "finite", "not finite", "a division by zero or a logarithm of zero")
