"""Images that stay in host memory or on disk and go to the device a batch at a time."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor


class ImageSource(Protocol):
    """uint8 images (N, C, H, W), on the device or in transit to it."""

    shape: torch.Size

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> Tensor: ...


class StreamedImages:
    """uint8 images (N, C, H, W) read batch by batch, each while the previous one is in use.

    Args:
        images: Images on the CPU, in memory or memory-mapped.
        device: Device for the batches.
    """

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self._images = images
        self._device = device
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="images")
        self._ahead: list[tuple[Tensor, Future[Tensor]]] = []
        self.shape = images.shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Tensor, /) -> Tensor:
        ready = next((batch for of, batch in self._ahead if of is index), None)
        batch = self._read(index.cpu()) if ready is None else ready.result()
        return batch.to(self._device, non_blocking=True)

    def prefetch(self, index: Tensor, rows: Tensor) -> None:
        """Starts reading a batch; keeps this one and the previous one.

        Args:
            index: The tensor object that the images will be indexed with.
            rows: The same indices on the CPU, so that nothing waits for the device.
        """
        self._ahead = [*self._ahead[-1:], (index, self._reader.submit(self._read, rows))]

    def _read(self, rows: Tensor) -> Tensor:
        batch = self._images[rows]
        return batch.pin_memory() if self._device.type == "cuda" else batch

    def close(self) -> None:
        """Stops the reader."""
        self._reader.shutdown(cancel_futures=True)
        self._ahead.clear()
