"""Numbers and pictures of a run for TensorBoard and for the trackers that accelerate knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import Video2LoRAError
from ...files.writing import failing_in_a_sentence

log = logging.getLogger(__name__)
TENSORBOARD = "tensorboard"


def check_trackers(names: Sequence[str]) -> None:
    """Raise Video2LoRAError for a tracker that accelerate does not know, or that is not installed."""
    if not names:
        return
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers
    except ImportError as error:
        raise Video2LoRAError(
            f"The tracker '{names[0]}' needs the package accelerate; install it, or leave trackers empty."
        ) from error
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(map(str, LOGGER_TYPE_TO_CLASS)))
            raise Video2LoRAError(f"There is no tracker '{name}'; use some of {known}.")
        if not filter_trackers([name], logging_dir="."):
            raise Video2LoRAError(
                f"The tracker '{name}' is not installed; install its package, or take it out of trackers."
            )


class Boards:
    """Whatever shows a run elsewhere. What one of them can not take is said once and ends nothing."""

    def __init__(
        self, folder: Path, trackers: Sequence[str], tensorboard: bool, resumed_step: int, config: Mapping
    ) -> None:
        check_trackers(trackers)
        self._folder = folder
        self._writer = _tensorboard(folder / TENSORBOARD, resumed_step) if tensorboard else None
        self._trackers = [_tracker(name, folder, config) for name in trackers]

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by name."""
        if self._writer is not None:
            with failing_in_a_sentence(self._folder):
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)
        for tracker in self._trackers:
            self._told(tracker, "log", dict(values), step)

    def pictures(self, pictures: Mapping[str, Image.Image], step: int) -> None:
        """Show pictures by name."""
        arrays = {name: np.asarray(picture) for name, picture in pictures.items()}
        if self._writer is not None:
            with failing_in_a_sentence(self._folder):
                for name, array in arrays.items():
                    self._writer.add_image(name, array, step, dataformats="HWC")
        for tracker in self._trackers:
            if hasattr(tracker, "log_images"):
                # Batches of one: those of TensorBoard want NHWC said, others take lists.
                options = {"dataformats": "NHWC"} if tracker.name == TENSORBOARD else {}
                values = {name: array[None] for name, array in arrays.items()}
                self._told(tracker, "log_images", values, step, **options)

    def close(self) -> None:
        """Flush what is buffered."""
        if self._writer is not None:
            with failing_in_a_sentence(self._folder):
                self._writer.close()
        for tracker in self._trackers:
            self._told(tracker, "finish")
        self._trackers = []

    def _told(self, tracker: Any, method: str, *arguments: Any, **options: Any) -> None:
        try:
            getattr(tracker, method)(*arguments, **options)
        except Exception as error:
            # Networks and services fail; a training of days does not end for that.
            log.warning("The tracker %s takes nothing more: %s", tracker.name, error)
            self._trackers = [other for other in self._trackers if other is not tracker]


def _tensorboard(folder: Path, resumed_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    with failing_in_a_sentence(folder):
        return SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)


def _tracker(name: str, folder: Path, config: Mapping) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    where = {"logging_dir": str(folder / "trackers")} if kind.requires_logging_directory else {}
    plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in config.items()}
    try:
        tracker = kind(folder.name, **where)
        if hasattr(tracker, "start"):
            tracker.start()
        tracker.store_init_configuration(plain)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise Video2LoRAError(
            f"The tracker '{name}' does not start ({reason}); set it up, or take it out of trackers."
        ) from error
    return tracker
