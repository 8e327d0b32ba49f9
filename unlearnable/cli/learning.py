"""What ``fit`` and ``protect`` do."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import UnknownImageError
from .arguments import (
    PARAMETERS,
    check_out,
    check_replaced,
    chosen,
    loaded,
    method_class,
    method_of,
    open_originals,
)
from .ending import ending
from .exporting import (
    MEASURED,
    check_export,
    check_fit,
    described,
    fit_options,
    folders,
    mapping,
    noticed,
    times,
)
from .rescue import keeping
from .terminal import show

# Whatever takes time to import is imported by the functions that need it: help is there at once.
if TYPE_CHECKING:
    from ..methods.base import Method
    from ..perturbation.perturbation import Perturbation


def fit(args: argparse.Namespace) -> None:
    """Learn a perturbation and save it with its surrogate network."""
    from ..engine.distributed import Group
    from .journey import Journey, is_photos

    with Group.join().rank_zero_first() as first:
        if first:
            check_out(args.out, force=args.force, apart=folders(args.dataset))
    dataset = open_originals(args.dataset)
    if is_photos(dataset):
        Journey(args, dataset).fit()
        return
    _refuse_others(args)
    _name_method(args)
    _refuse_one_class(args, dataset)
    with Group.join().rank_zero_first() as first:
        if first:
            check_replaced(args.out, dataset, force=args.force, method=method_of(args))
    method = _fit(args, dataset)
    with Group.join().rank_zero_first() as first:
        if first:
            with keeping(args, method):
                folder = method.save_pretrained(args.out, force=args.force)
            _finish(args, method.perturbation_.info() | {"folder": str(folder)}, method)


def protect(args: argparse.Namespace) -> None:
    """Write protected copies of photos or of another dataset; the originals are not changed."""
    from ..engine.distributed import Group
    from ..protected.dataset import ProtectedDataset
    from ..protected.export import ONE_SIZE
    from .journey import Journey, is_photos, survey_of

    if args.gps and not args.metadata:
        raise ValueError("expected --keep-metadata with --keep-gps")
    if not 0 <= args.fraction <= 1:
        raise ValueError(f"expected --fraction from 0 to 1, got {args.fraction:g}")
    if args.format == "jpeg" and args.quality is None:
        raise ValueError(
            "expected --quality with --format jpeg, which is lossy; pass --quality original to "
            "keep the quality of each photo, or a number such as --quality 95 (smaller files "
            "protect less)"
        )
    check_export(args)
    _check_ready(args)
    dataset = open_originals(args.dataset)
    method, perturbation = None, _ready(args, dataset)
    if perturbation is None and is_photos(dataset):
        Journey(args, dataset).protect()
        return
    _refuse_others(args)
    _name_method(args)
    survey = survey_of(args, dataset)
    resize = args.resize or args.format in ONE_SIZE
    if perturbation is None:
        _refuse_one_class(args, dataset)
        check_fit(args, dataset, method_of(args), args.image_size, resize=resize)
        method = _fit(args, dataset)
        perturbation = method.perturbation_
        with Group.join().rank_zero_first() as first:
            if first and args.save_perturbation is not None:
                with keeping(args, method):
                    method.save_pretrained(args.save_perturbation, force=args.force)
    resized = perturbation.fit_size is not None
    if survey is not None:
        resized = perturbation.resizes(survey.sizes)
    full_size = not resize and resized
    if survey is not None:
        _check_folders(args, dataset, perturbation)
    with _new_photos_in_words(args, survey is not None):
        protected = ProtectedDataset(
            dataset, perturbation, fraction=args.fraction, seed=args.seed, full_size=full_size
        )
    args.mapping = mapping(args)
    with Group.join().rank_zero_first() as first:
        if first:
            with keeping(args, method, args.save_perturbation):
                options = chosen(args, protected.export) | {"resume": True, "measure": MEASURED}
                folder = protected.export(args.out, args.format, **options)
            values = described(args, folder, protected) | noticed(survey)
            text = None
            if survey is not None and not args.json:
                key = _key(args, perturbation)
                said = ending(args, protected, values | {"key": key}, MEASURED)
                text = "\n".join([*survey.summary(), said])
            _finish(args, values, method, text)


def _key(args: argparse.Namespace, perturbation: Perturbation) -> str:
    """What other commands take as the key: of rows that were computed, the folder they are in."""
    from ..hub.catalogue import computed

    known = computed(args.perturbation) is None or perturbation.folder is None
    return str(args.perturbation if known else perturbation.folder)


@contextlib.contextmanager
def _new_photos_in_words(args: argparse.Namespace, photos: bool) -> Iterator[None]:
    """Where some of the photos are not those of the key: what to do with them."""
    try:
        yield
    except UnknownImageError as error:
        if not photos:
            raise
        raise UnknownImageError(
            f"expected the photos that {args.perturbation} was made for, got new or edited ones "
            f"among them in {args.dataset}; move those to a separate folder and protect that "
            f"folder without --perturbation"
        ) from error


def _check_folders(args: argparse.Namespace, dataset: Any, perturbation: Perturbation) -> None:
    """Refuses photos in other folders than those of the key, where it goes by folders."""
    from ..data.class_matching import match_classes

    names = perturbation.config["classes"]
    if names is None or not perturbation.by_class:
        return
    try:
        match_classes(names, dataset.classes, "a dataset", some=True)
    except ValueError as error:
        raise ValueError(
            f"expected photos in the folders that {args.perturbation} was made for, "
            f"{', '.join(names)}, since what it adds depends on the folder, got "
            f"{', '.join(dataset.classes)}; name the folders alike, or protect these photos "
            f"without --perturbation"
        ) from error


def _refuse_others(args: argparse.Namespace) -> None:
    for name in ("others", "clusters"):
        if vars(args)[name] is not None:
            raise ValueError(
                f"expected --{name} only when learning from a folder of photos, got "
                f"{args.dataset!r}"
            )


def _name_method(args: argparse.Namespace) -> None:
    """The method and preset of datasets that are no folders of photos, where none was named."""
    args.method, args.preset = args.method or "sem", args.preset or "fast"


def _refuse_one_class(args: argparse.Namespace, dataset: Any) -> None:
    """Refuses, before photos are looked through, what the fit would refuse."""
    from ..methods.one_class import refuse_one_class

    refuse_one_class(method_class(args), dataset)


def _check_ready(args: argparse.Namespace) -> None:
    """Refuses options of a fit where a saved perturbation is to be applied."""
    from ..hub.catalogue import premade

    if args.perturbation is None:
        return
    if args.perturbation == os.path.normpath(args.out) and premade(args.perturbation) is not None:
        raise ValueError(
            f"expected copies in a folder with a name of its own, got that of the perturbation, "
            f"{args.out}, which later commands would look for in the folder; choose another name"
        )
    others = ("others", "clusters")
    fitting = (*PARAMETERS, "set", "image_size", "save_perturbation", "visibility", *others)
    ignored = [
        "--" + name.replace("_", "-") for name in fitting if vars(args)[name] not in (None, [])
    ]
    if ignored:
        raise ValueError(
            f"expected no {', '.join(ignored)} with --perturbation, which has been fitted already"
        )


def _ready(args: argparse.Namespace, dataset: Any) -> Perturbation | None:
    """The saved perturbation that is to be applied, or None."""
    return None if args.perturbation is None else loaded(args, dataset)


def _fit(args: argparse.Namespace, dataset: Any) -> Method:
    # The checkpoint is kept until the result is saved.
    method = method_of(args)
    return method.fit(dataset, keep_checkpoint=True, **fit_options(args, method))


def _finish(
    args: argparse.Namespace,
    values: dict[str, Any],
    method: Method | None,
    text: str | None = None,
) -> None:
    """Shows what was done, and where a profiled fit's time went."""
    show(args, values | times(method), text)
    if args.checkpoint is not None:
        from ..methods.checkpoint_folder import remove_checkpoint

        remove_checkpoint(args.checkpoint)
