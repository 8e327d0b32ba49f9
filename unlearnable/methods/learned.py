"""What a fit leaves in a method: its attributes, its surrogate, and both in files."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors
import torch
from torch import Tensor, nn

from ..data.clusters import ClusteredDataset
from ..data.raw import RawDataset
from ..engine.checkpoint import save_tensors
from ..engine.models import (
    build_model,
    check_network,
    check_state,
    is_model_name,
    reset_weights,
)
from ..engine.modes import usual_modes
from ..engine.pretrained import check_pretrained, pretrained_network, unfilled_network
from ..engine.quantization import load_weights
from ..engine.run import Run
from ..errors import ArtefactError, NotFittedError
from ..io.files import write_json
from ..perturbation import serialization
from ..perturbation.perturbation import Perturbation
from .parameters import Parameters

Self = TypeVar("Self", bound="Learned")
_METHOD = "method.json"
SURROGATE = "surrogate.safetensors"


class Learned(Parameters):
    """Parameters and what was learned with them."""

    perturbation_: Perturbation
    surrogate_: nn.Module | None
    history_: list[dict[str, Any]]

    if not TYPE_CHECKING:  # or any attribute would pass for one

        def __getattr__(self, name: str) -> Any:
            if name in Learned.__annotations__:
                raise NotFittedError(
                    f"this {type(self).__name__} is not fitted yet: call fit(dataset) first, or "
                    f"load a perturbation with Perturbation.from_pretrained"
                )
            return object.__getattribute__(self, name)  # its own error, also of a property

    @property
    def needs_labels(self) -> bool:
        """Whether the method needs labels."""
        return True

    def _check_surrogate(self) -> None:
        """Raises ``ValueError`` for a network of the caller's that no fit can use."""
        surrogate = getattr(self, "surrogate", None)
        if isinstance(surrogate, nn.Module):
            check_state(surrogate)

    def check_labelled(self, dataset: Any) -> None:
        """Raises ``ValueError`` if a dataset has no labels but the method needs them."""
        if self.needs_labels and not RawDataset(dataset).labelled:
            raise ValueError(
                f"expected images with labels, which {self!r} needs, got a dataset without; say "
                f"where the labels are with unlearnable.from_items(dataset, label=…)"
            )

    def check_clusters(self, dataset: Any, fitted: Perturbation | None = None) -> None:
        """Raises ``ValueError`` where clusters are to be learned, or extended, that cannot be."""
        clustered = RawDataset(dataset).holds(ClusteredDataset)
        if clustered and not (self._has_rows and self.kind == "additive"):
            raise ValueError(
                f"expected a method with a row for each image, such as SEM, for images in "
                f"clusters, got {self!r}, which depends on their classes; a new image does not "
                f"reveal its cluster"
            )
        source = None if fitted is None else fitted.config["source"]["name"]
        if source == ClusteredDataset.__name__ and not clustered:
            raise ValueError(
                "expected new images assigned to the learned clusters, got some with their own "
                "labels; pass clustered.assign(new_images), where clustered is the result of "
                "clusters()"
            )
        if clustered and source not in (None, ClusteredDataset.__name__):
            raise ValueError(
                f"expected new images of the fitted classes, got images in clusters, which are "
                f"numbered at random; pass them with their own labels, or fit a new "
                f"{type(self).__name__} on the clusters"
            )

    def check_unchanged(self, fitted: Perturbation) -> None:
        """Raises ``ValueError`` if parameters are no longer those of the fit."""
        defaults = {name: self._defaults()[name] for name in self.later}  # not stated
        stated = defaults | fitted.parts[0].config["parameters"]
        then, now = (
            json.loads(json.dumps(params))
            for params in (stated, defaults | self._identity["parameters"])
        )
        for name in now.keys() & then.keys() - {"batch_size"}:
            if now[name] != then[name]:
                raise ValueError(
                    f"expected {name}={then[name]!r} as in the fit, got {now[name]!r}; new rows "
                    f"are made like the others, so set it back, or fit again"
                )

    def _check_weights(self) -> None:
        """Raises before the work where a named network's pretrained weights are not here."""
        surrogate = getattr(self, "surrogate", None)
        if isinstance(surrogate, str) and getattr(self, "pretrained_surrogate", False):
            check_pretrained(surrogate)

    def _build_surrogate(self, run: Run, *, name: str = "surrogate") -> nn.Module:
        """The surrogate of ``self.surrogate``: fresh or pretrained weights, or a caller's module.

        Raises:
            ImportError: Its pretrained weights are not installed.
            ValueError: It does not take the run's images, or give one logit for each class.
        """
        shape, seed = run.images.shape[1:], run.weight_seed(name)
        keep = getattr(self, "pretrained_surrogate", False)
        if isinstance(self.surrogate, str) and keep:
            model: nn.Module = pretrained_network(
                self.surrogate, run.num_classes, channels=shape[0], seed=seed
            )
        elif isinstance(self.surrogate, str):
            model = build_model(self.surrogate, run.num_classes, shape[0], seed=seed)
        else:
            model = copy.deepcopy(self.surrogate)
            if not keep:
                reset_weights(model, seed=seed)
        check_network(model, shape, run.num_classes)
        return model

    def _empty_surrogate(self, config: dict[str, Any]) -> nn.Module:
        """A network like the fitted surrogate, for :meth:`from_pretrained` to fill with weights.

        A method whose surrogate is not given by the parameter ``surrogate`` writes its own.

        Args:
            config: Of the perturbation; holds ``num_classes`` and ``image_shape``, (C, H, W).
        """
        if isinstance(self.surrogate, nn.Module):
            return copy.deepcopy(self.surrogate)
        if not is_model_name(self.surrogate):
            raise ValueError(
                f"expected surrogate= with a module to load the weights into, got none; the "
                f"method was fitted with your own {self.surrogate}, so pass one"
            )
        shape = config["num_classes"], config["image_shape"][0]
        if getattr(self, "pretrained_surrogate", False):
            return unfilled_network(self.surrogate, *shape)
        return build_model(self.surrogate, *shape)

    def _restore_surrogate(self, network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        """A module for the saved ``state`` of ``surrogate_``, from a network as it is built."""
        return network

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> Path:
        """Writes the perturbation together with the method and its surrogate, to extend it later.

        Args:
            folder: As in :meth:`Perturbation.save_pretrained`; ``Perturbation.from_pretrained``
                reads the same folder.
            force: As in :meth:`Perturbation.save_pretrained`.

        Raises:
            NotFittedError: ``fit`` was not called.
            FileExistsError: As in :meth:`Perturbation.save_pretrained`.
            OSError: The disk is full or read-only; existing files are left intact, and the method
                keeps what it learned.
        """
        surrogate, learned = self.surrogate_, self.perturbation_
        described = self._identity | {"digest": learned.digest, "history": self.history_}

        def write_surrogate(path: Path) -> None:
            assert surrogate is not None
            path.unlink(missing_ok=True)  # a link would be followed
            # Copies: safetensors refuses tensors that share their memory, as tied weights do.
            contiguous = torch.contiguous_format
            state = surrogate.state_dict()
            weights = {name: t.clone(memory_format=contiguous) for name, t in state.items()}
            save_tensors(path, weights)

        beside = {
            SURROGATE: None if surrogate is None else write_surrogate,
            _METHOD: lambda path: write_json(path, described),
        }
        return serialization.save(folder, learned._kind, force=force, beside=beside)

    @classmethod
    @usual_modes()
    def from_pretrained(
        cls: type[Self], folder: str | Path, *, surrogate: nn.Module | None = None
    ) -> Self:
        """Loads a fitted method.

        Args:
            folder: Folder written by :meth:`save_pretrained`.
            surrogate: A module of the same structure, if the method was fitted with a module.

        Raises:
            ArtefactError: The folder contains another method or a damaged one.
            FileNotFoundError: There is no such folder.
        """
        hint = "; to read only the perturbation, use Perturbation.from_pretrained"
        if not Path(folder).exists():
            raise FileNotFoundError(
                f"expected a folder that save_pretrained of a fitted {cls.__name__} wrote, got "
                f"{str(folder)!r}, which does not exist (looked in {Path.cwd()}); the Hub and "
                f"pre-made names have no fitted methods{hint}"
            )
        folder = Path(folder)
        perturbation = Perturbation.from_pretrained(folder)
        try:
            saved = json.loads((folder / _METHOD).read_text(encoding="utf-8"))
            found, params = saved["method"], saved["parameters"]
            digest, history = saved["digest"], saved["history"]
        except (OSError, ValueError, KeyError) as error:
            raise ArtefactError(
                f"expected a fitted method in {folder}, found no readable {_METHOD}{hint}"
            ) from error
        if found != cls.__name__:
            raise ArtefactError(f"expected a fitted {cls.__name__} in {folder}, found {found}")
        if digest != perturbation.digest:
            raise ArtefactError(
                f"expected the method of the perturbation in {folder}, got that of another "
                f"perturbation, saved there before{hint}"
            )
        try:
            self = cls(**(params | ({} if surrogate is None else {"surrogate": surrogate})))
        except TypeError as error:
            raise ArtefactError(f"{folder / _METHOD} has unknown parameters: {error}") from error
        self.surrogate_ = None
        if (folder / SURROGATE).exists():
            model = self._empty_surrogate(perturbation.config)
            try:
                state = load_weights(folder / SURROGATE)
                model = self._restore_surrogate(model, state)
                model.load_state_dict(state)
            except (RuntimeError, ValueError, safetensors.SafetensorError) as error:
                raise ArtefactError(f"could not read {folder / SURROGATE}: {error}") from error
            self.surrogate_ = model.eval()
        self.history_ = history
        self.perturbation_ = perturbation
        return self


def fingerprint_of(surrogate: Any, *, kept: bool) -> str | None:
    """A fingerprint of a caller's network: names, shapes and values of its state.

    Unless its weights are ``kept``, they are as after their reset: another start is the same.
    """
    if not isinstance(surrogate, nn.Module):
        return None
    if not kept:
        surrogate = copy.deepcopy(surrogate)
        reset_weights(surrogate)
    digest = hashlib.blake2b(digest_size=16)
    for name, value in surrogate.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        content = value.detach().cpu().contiguous().flatten()
        digest.update(content.view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()
