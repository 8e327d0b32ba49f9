"""Folders of photos: planned, said, learned, written, and what to do next."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.interrupts import in_words
from ..engine.sizes import readable_size
from .arguments import PARAMETERS, check_out, check_replaced, chosen, method_class, parameters
from .ending import ending
from .exporting import check_fit, described, fit_options, folders, mapping, noticed, times
from .rescue import keeping
from .stages import learning_bar, plain_words
from .terminal import show
from .unfinished import Unfinished, beside

if TYPE_CHECKING:
    from ..data.image_folder import ImageFolder, Survey
    from ..methods.base import Method
    from ..photos.plan import Plan

logger = logging.getLogger(__name__)
_EVERY = 60.0  # seconds between checkpoints, where none are named
_USUAL = 300.0  # what the option is where it was not given
_LARGEST = 1024  # pixels to learn at: what a network sees of a photo is smaller than that
_COMPARED = 8  # photos that are measured at the end: large ones take a second each
# What a plan depends on, beside the photos.
_ASKED = (
    *PARAMETERS, "method", "preset", "set", "seed", "image_size", "visibility", "device",
    "precision", "dataset", "others", "clusters",
)  # fmt: skip


def is_photos(dataset: Any) -> bool:
    """Whether the dataset is a folder of photos."""
    from ..data.image_folder import ImageFolder

    return isinstance(dataset, ImageFolder)


def survey_of(args: argparse.Namespace, dataset: Any, *, decode: bool = True) -> Survey | None:
    """Checks a folder of photos before the work starts; None for other datasets.

    A fit that follows decodes the photos anyway and names damaged ones before it starts.
    """
    from ..data.image_folder import survey_folder
    from ..engine.distributed import Group

    if not is_photos(dataset):
        return None
    group = Group.join()
    with group.rank_zero_first() as first:
        found = survey_folder(dataset, decode=decode, progress=args.progress) if first else None
    survey: Survey = group.share(found)
    return survey


class Journey:
    """Takes a folder of photos through the whole command.

    Args:
        args: Arguments of ``fit`` or ``protect``; what they leave open is planned.
        dataset: The photos.
    """

    def __init__(self, args: argparse.Namespace, dataset: ImageFolder) -> None:
        from ..data.image import ResizeCrop
        from ..engine.distributed import Group
        from ..methods.one_class import refuse_one_class

        self._args, self._dataset = args, dataset
        self._others = None if args.others is None else _open_others(args.others)
        self._group = Group.join()
        _refuse_large(args.image_size)
        ResizeCrop.parse(args.image_size)  # refused before anything is planned
        parameters(args)
        if args.method is not None and self._others is None and args.clusters is None:
            try:
                refuse_one_class(method_class(args), dataset)
            except ValueError as error:
                raise ValueError(
                    f"expected photos in two folders or more with --method {args.method}, which "
                    f"learns what tells the folders apart, got photos of one kind; leave out "
                    f"--method, or name a folder of other pictures with --others"
                ) from error
        datasets = [dataset] if self._others is None else [dataset, self._others]
        asked = {name: vars(args)[name] for name in _ASKED}
        for name in ("dataset", "others"):  # however their paths are written
            asked[name] = None if asked[name] is None else str(Path(asked[name]).resolve())
        self._unfinished = Unfinished(args.out, asked, datasets)
        self._planned = False

    def fit(self) -> None:
        """Learns a perturbation and saves it."""
        args = self._args
        with plain_words(verbose=args.verbose):
            survey = survey_of(args, self._dataset, decode=False)
            plan = self._plan(survey)
            with self._group.rank_zero_first() as first:
                if first:
                    options = {"force": args.force, "method": plan.method}
                    check_replaced(args.out, self._dataset, **options)
            method = self._learn(plan)
            with self._group.rank_zero_first() as first:
                if first:
                    with keeping(args, method):
                        folder = self._save(plan, args.out)
                    values = method.perturbation_.info() | {"folder": folder}
                    show(args, values | noticed(survey) | times(method))
                    self._clean_up()

    def protect(self) -> None:
        """Learns a perturbation, saves it as the key, and writes the copies."""
        args = self._args
        args.save_perturbation = args.save_perturbation or str(beside(args.out, "key"))
        args.checkpoint = args.checkpoint or self._unfinished.checkpoint
        if args.checkpoint_every == _USUAL:
            args.checkpoint_every = _EVERY
        with contextlib.ExitStack() as alone:
            with self._group.rank_zero_first() as first:
                if first:
                    apart = [*folders(args.dataset), args.out]
                    check_out(args.save_perturbation, force=args.force, apart=apart)
                    alone.enter_context(self._unfinished.alone())
            self._protect()

    def _protect(self) -> None:
        from ..protected.export import ONE_SIZE
        from ..protected.export.encoding import Encoding

        args = self._args
        with plain_words(verbose=args.verbose), self._interrupts():
            survey = survey_of(args, self._dataset, decode=False)
            resize = args.resize or args.format in ONE_SIZE
            if not resize and survey is not None:
                for size in survey.sizes:
                    Encoding.of(args.format, args.quality).check_side(size)
            plan = self._plan(survey)
            options = {"resize": resize, "replace": self._replaces_key()}
            check_fit(args, self._dataset, plan.method, plan.image_size, **options)
            try:
                method = self._learn(plan)
                with self._group.rank_zero_first() as first:
                    if first:
                        self._write(plan, method, survey, resize=resize)
            except ValueError as error:
                raise self._of_all(error) from error

    def _of_all(self, error: ValueError) -> ValueError:
        """An error of a damaged photo as one that names all of them, where there are several.

        Methods that learn nothing from photos find each of them only when it is its turn.
        """
        from ..data.image_folder import survey_folder
        from ..data.many_photos import BadPhotosError

        if "an intact photo" in str(error) and not isinstance(error, BadPhotosError):
            try:
                survey_folder(self._dataset, progress=self._args.progress)
            except BadPhotosError as found:
                return found if found.count > 1 else error
        return error

    def _plan(self, survey: Survey | None) -> Plan:
        """What is going to be done, as an interrupted command began it or as it is planned now."""
        from ..photos.plan import Plan

        assert survey is not None
        values, resumed = None, False
        with self._group.rank_zero_first() as first:
            if first:
                values = self._unfinished.planned()
                resumed = values is not None
                if values is None:
                    plan = self._new_plan(survey)
                    values = plan.to_dict()
                    if self._args.checkpoint is not None:
                        self._unfinished.keep(plan)
                self._planned = True
        plan = Plan.from_dict(self._group.share(values), self._dataset, self._others)
        if self._group.rank == 0:
            said = plan.sentences()  # the first says what it is about
            for line in said[:1] if resumed else [*survey.summary(), *said]:
                logger.info("%s", line)
            if not resumed:
                self._say_disk(plan)
        return plan

    def _say_disk(self, plan: Plan) -> None:
        """PNG files are large: how large, and whether there is room, before the work."""
        if getattr(self._args, "format", None) != "png" or self._args.resize:
            return
        originals = sum(Path(path).stat().st_size for path, _ in self._dataset.samples)
        logger.info(
            "As PNG, the copies will take about %s of disk space; the photos take %s. With "
            "--format jpeg --quality original, the copies are about as large as the photos, but "
            "protect less.",
            readable_size(plan.disk),
            readable_size(originals),
        )
        place = Path(self._args.out).absolute()
        there = next(folder for folder in place.parents if folder.exists())
        if plan.disk > (free := shutil.disk_usage(there).free):
            logger.warning(
                "Only %s are free in %s, less than the copies need: free some space there, or "
                "choose another folder for them.",
                readable_size(free),
                there,
            )

    def _new_plan(self, survey: Survey) -> Plan:
        from ..photos.plan import plan_photos

        args = self._args
        logger.info("Checking how fast this computer is …")
        side = max(args.image_size) if isinstance(args.image_size, tuple) else args.image_size
        try:
            plan = plan_photos(
                self._dataset,
                survey,
                visibility=args.visibility or "low",
                device=args.device,
                precision=args.precision,
                method=None if args.method is None else method_class(args),
                preset=args.preset,
                params=parameters(args),
                image_size=side,
                others=self._others,
                clusters=args.clusters,
            )
        except TypeError as error:  # of a parameter that the method does not have
            raise ValueError(str(error)) from error
        if side is not None:
            plan = dataclasses.replace(plan, image_size=args.image_size)
        if args.visibility is not None:
            plan = dataclasses.replace(plan, visibility=args.visibility)
        return plan if hasattr(args, "format") else plan.without_copies()

    def _learn(self, plan: Plan) -> Method:
        options = fit_options(self._args, plan.method)
        for name in ("image_size", "visibility"):
            options.pop(name)
        learns = plan.method.passes(len(plan.both or self._dataset)) != 0
        show = self._args.progress and self._group.rank == 0 and learns
        with learning_bar(show=show) as advance:
            options["progress"] = advance if show else False
            # The checkpoint is kept until the copies are written.
            return plan.fit(self._dataset, keep_checkpoint=True, **options)

    def _replaces_key(self) -> bool:
        """Whether a key is that of an unfinished run, whatever photos that was about."""
        return self._unfinished.saved(self._args.save_perturbation)

    def _save(self, plan: Plan, folder: str, *, force: bool = False) -> str:
        kept = plan.method if plan.both is None else plan.method.perturbation_
        return str(kept.save_pretrained(folder, force=self._args.force or force))

    def _write(self, plan: Plan, method: Method, survey: Survey | None, *, resize: bool) -> None:
        from ..protected.dataset import ProtectedDataset

        args = self._args
        key = self._save(plan, args.save_perturbation, force=self._replaces_key())
        self._unfinished.keep_key(key)
        assert survey is not None
        protected = ProtectedDataset(
            self._dataset,
            method.perturbation_,
            fraction=args.fraction,
            seed=args.seed,
            full_size=not resize and method.perturbation_.resizes(survey.sizes),
            check=0,  # it was just learned on them
        )
        args.mapping = mapping(args)
        options = chosen(args, protected.export) | {"resume": True, "measure": _COMPARED}
        folder = protected.export(args.out, args.format, **options)
        values = described(args, folder, protected, _COMPARED) | {"key": key}
        text = None if args.json else ending(args, protected, values, _COMPARED, plan)
        show(args, values | noticed(survey) | times(method), text)
        self._clean_up()

    def _clean_up(self) -> None:
        from ..methods.checkpoint_folder import remove_checkpoint

        if self._args.checkpoint is not None:
            remove_checkpoint(self._args.checkpoint)
            self._unfinished.remove()

    def _say_kept(self) -> None:
        """After an error: what is left for the same command. A plan alone is not."""
        from ..engine.checkpoint import STATE

        checkpoint = self._args.checkpoint
        if (Path(checkpoint) / STATE).exists():
            own = checkpoint != self._unfinished.checkpoint  # named with --checkpoint
            logger.warning(
                "What has been learned so far is kept in %s: run the same command again to "
                "continue.",
                checkpoint if own else self._unfinished,
            )
        else:
            self._unfinished.remove()

    @contextlib.contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Ctrl-C and errors in words: what is kept, and how to go on."""
        try:
            yield
        except Exception:
            if self._planned and self._group.rank == 0:
                self._say_kept()
            raise
        except KeyboardInterrupt as interrupt:
            kept = "nothing has been written yet"
            if self._unfinished.exists():
                kept = (
                    f"the work so far is kept in {self._unfinished}. Run the same command again "
                    f"to continue, or delete that folder to discard it"
                )
            interrupt.args = (f"{in_words(type(interrupt))}; {kept}",)
            raise


def _open_others(name: str) -> ImageFolder:
    from ..data.image_folder import open_folder

    if not Path(name).is_dir():
        raise ValueError(
            f"expected a folder of other pictures with --others, got {name!r}, which is no folder; "
            f"check the spelling"
        )
    return open_folder(name)


def _refuse_large(size: int | tuple[int, ...] | None) -> None:
    sides = size if isinstance(size, tuple) else (size or 0,)
    if max(sides) > _LARGEST:
        raise ValueError(
            f"expected --image-size of up to {_LARGEST:,} pixels, the size at which photos are "
            f"learned, got {max(sides):,}; leave it out: the copies have the photos' own size"
        )
