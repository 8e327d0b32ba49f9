"""What of a run outlives its steps: what the steps change, and what is made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .checkpoint import Checkpoint
from .loops import Loops


class State:
    """Tracked objects, and cached results, which a checkpoint stores in separate files."""

    def __init__(self, loops: Loops, checkpoint: Checkpoint | None, device: torch.device) -> None:
        self._loops = loops
        self._checkpoint = checkpoint
        self._device = device
        self._tracked: dict[str, Any] = {}
        self._restored: dict[str, Any] = {}
        self._cached: dict[str, Any] = {}
        self._loops_of: dict[str, int] = {}  # cached result -> loops that making it took

    def track(self, name: str, item: Any) -> None:
        """Registers an object that changes; in a resumed run, restores its saved state."""
        if name in self._tracked:
            raise ValueError(f"expected a new name to track, got {name!r} again")
        self._tracked[name] = item
        if name in self._restored:
            if isinstance(item, Tensor):
                item.copy_(self._restored[name])
            else:
                item.load_state_dict(self._restored[name])

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """The result of the first call of ``make``, in this process or an earlier one."""
        if name not in self._loops_of:
            before = self._loops.begun
            self._cached[name] = make()
            self._loops_of[name] = self._loops.begun - before
            if self._checkpoint is not None:
                self._checkpoint.keep(name, self._cached[name])
        elif name not in self._cached:
            assert self._checkpoint is not None
            self._loops.skip(self._loops_of[name])
            self._cached[name] = _moved(self._checkpoint.kept(name), self._device)
        return self._cached[name]

    def state(self) -> dict[str, Any]:
        """The state stored in a checkpoint."""
        return {
            "kept": self._loops_of,
            "tracked": {
                name: item if isinstance(item, Tensor) else item.state_dict()
                for name, item in self._tracked.items()
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state from :meth:`state`."""
        self._loops_of, self._restored = state["kept"], state["tracked"]


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {name: _moved(item, device) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_moved(item, device) for item in tree]
    return tree
