"""A GPU without a GPU: tensors on ``cuda`` have shapes and no values, those on the CPU are real.

Torch refuses to mix devices as on a GPU. What makes Python wait for the GPU is counted, and
answered by plain values.
"""

import contextlib
from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unlearnable.engine.run import Run

CUDA, META = torch.device("cuda", 0), torch.device("meta")
aten = torch.ops.aten


class FakeGPU(TorchDispatchMode):
    """While it is entered, ``cuda`` is a device.

    A mask selects nothing, a number read from the GPU is 1, and a tensor copied from it holds ones.

    Attributes:
        waits: How often Python waited for the GPU, by kind: for a number (``item``) or a tensor
            (``read``), for a shape that depends on values (``mask``), and for a copy from memory
            that is not pinned (``send``).
        launches: Kernels and copies.
        generators: Made, by type of device.
        by_loop: Title of a loop -> the most waits of a pass through its body, inner loops apart.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.generators, self.launches = Counter(), Counter(), 0
        self.by_loop = {}
        self._context = contextlib.ExitStack()

    def __enter__(self):
        patch = self._context.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch, "Generator", self._generators(torch.Generator))
        patch.setattr(FakeTensor, "tolist", lambda tensor: self._tolist(tensor))
        patch.setattr(Run, "steps", self._watched(Run.steps))
        patch.setattr("unlearnable.engine.networks.global_seed", _no_seed)
        # As on a GPU, a module that moves keeps its parameters, which an optimiser knows.
        patch.setattr(torch.__future__, "get_swap_module_params_on_conversion", lambda: True)
        patch.setattr(torch.utils, "swap_tensors", _swap)
        self._context.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        return super().__enter__()

    def __exit__(self, *exc_info):
        super().__exit__(*exc_info)
        self._context.__exit__(*exc_info)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("device") == META:
            kwargs = kwargs | {"device": CUDA}
        made_there = torch.device(kwargs.get("device") or "cpu") == CUDA
        if not made_there and not any(map(_fake, tree_leaves((args, kwargs)))):
            return _on_cpu(func, *args, **kwargs)
        if func is torch.ops.prim.device.default:
            return META  # for autograd in C++, which would ask a driver for the GPU's streams
        if func is aten._local_scalar_dense.default:
            self.waits["item"] += 1
            return _ones(args[0], tolist=True)
        if func is aten.allclose.default:
            self.waits["item"] += 1
            return True
        if func is aten._to_copy.default and kwargs.get("device") is not None:
            return self._copied(*args, **kwargs)
        if func is aten.copy_.default and args[0].device != args[1].device:
            self._count_copy(args[1], args[0].device, len(args) > 2 and args[2])
            return args[0]
        if func is aten.nonzero.default:
            self.waits["mask"] += 1
            return torch.empty((0, args[0].ndim), dtype=torch.int64, device=CUDA)
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            args = (args[0], self._indices(args[0], args[1]), *args[2:])
        empty = func._schema.name.startswith(("aten::empty", "aten::new_empty"))
        self.launches += not (func.is_view or empty)
        return func(*args, **kwargs)

    def _copied(self, tensor, *, device, dtype=None, non_blocking=False, **layout):
        device, dtype = torch.device(device), dtype or tensor.dtype
        if tensor.device.type == device.type and tensor.dtype == dtype:
            return tensor.detach()
        self._count_copy(tensor, device, non_blocking)
        if device.type == "cpu":
            return _ones(tensor, dtype)
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)

    def _count_copy(self, source, device, non_blocking):
        self.launches += 1
        if device.type == "cpu":
            self.waits["read"] += not non_blocking
        elif source.device.type == "cpu":
            self.waits["send"] += not (non_blocking and hasattr(source, "pinned"))

    def _indices(self, values, indices):
        """On the GPU, with masks that select nothing."""
        found = []
        for index in indices:
            masks = index is not None and index.dtype == torch.bool
            self.waits["mask"] += masks
            self.waits["send"] += index is not None and not index.is_cuda
            empty = [torch.empty(0, dtype=torch.int64, device=CUDA)] * index.ndim if masks else None
            found += empty or [index]
        return found

    def _tolist(self, tensor):
        self.waits["read"] += 1
        return _ones(tensor, tolist=True)

    def _generators(self, real):
        def made(device="cpu"):
            self.generators[torch.device(device).type] += 1
            return real("cpu")

        return made

    def _watched(self, steps):
        """``Run.steps``, which notes the waits between its steps."""
        inner = [Counter()]  # waits of the loops inside each loop that is under way

        def watched(run, count, title="steps"):
            for step in steps(run, count, title):
                before = self.waits.copy()
                inner.append(Counter())
                yield step
                whole = self.waits - before
                own = whole - inner.pop()
                inner[-1] += whole
                self.by_loop[title] = self.by_loop.get(title, Counter()) | own

        return watched


def _fake(leaf):
    return isinstance(leaf, FakeTensor)


def _on_cpu(func, *args, **kwargs):
    if func is aten.is_pinned.default:
        return hasattr(args[0], "pinned")
    pins = func is aten._pin_memory.default
    with unset_fake_temporarily():
        found = args[0].clone() if pins else func(*args, **kwargs)
    if pins:
        found.pinned = True
    return found


def _ones(like, dtype=None, *, tolist=False):
    with unset_fake_temporarily():
        ones = torch.ones(like.shape, dtype=dtype or like.dtype)
        return ones.tolist() if tolist else ones


def _swap(one, other):
    """As torch's, without asking for weak references, which every fake tensor has."""
    one.__class__, other.__class__ = other.__class__, one.__class__
    one.__dict__, other.__dict__ = other.__dict__, one.__dict__
    torch._C._swap_tensor_impl(one, other)


@contextlib.contextmanager
def _no_seed(seed, device):
    yield
