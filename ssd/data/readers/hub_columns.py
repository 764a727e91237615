"""The columns of a data set of the Hub: which hold the picture and the label, and what the labels are.

N rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ...commands.errors import UsageError
from ..labels import Classes, Label, number_classes, number_labels
from ..request import DataRequest


class Columns(NamedTuple):
    """The names of the column of pictures and of that of labels, if there is one, and the names of its classes."""

    image: str
    label: str | None
    class_names: list[str] | None


def find_columns(rows: Any, request: DataRequest) -> Columns:
    """The column of type Image ("image" or "img" if there are several), and the one of labels.

    That is `request.label_column`, else the one column of type ClassLabel, else the column "label".

    Raises
    ------
    UsageError
        When there is no such column, also of labels if they are wanted; with the columns that may be meant.
    """
    import datasets

    features = rows.features or {}
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    image = images[0] if len(images) == 1 else next((name for name in ("image", "img") if name in images), None)
    if image is None:
        raise UsageError(
            f"{request.spec} must have one column of type Image, or one named image; its columns: {list(features)}."
        )
    label = find_label(features, request)
    names = features[label].names if label is not None and isinstance(features[label], datasets.ClassLabel) else None
    return Columns(image, label, names)


def find_label(features: dict[str, Any], request: DataRequest) -> str | None:
    """The column of labels, None where there is none; see `find_columns`."""
    import datasets

    possible = [name for name, feature in features.items() if _may_be_label(feature)]
    if request.label_column is not None:
        if request.label_column not in possible:
            offered = f"use one of {', '.join(possible)}" if possible else "it has none"
            raise UsageError(f"{request.spec} has no column of labels {request.label_column!r}: {offered}.")
        return request.label_column
    declared = [name for name in possible if isinstance(features[name], datasets.ClassLabel)]
    if len(declared) == 1:
        return declared[0]
    if "label" in (declared or possible):
        return "label"
    if request.labels and possible:
        raise UsageError(
            f"{request.spec} does not say which column holds the labels: choose --label_column among "
            f"{', '.join(possible)}."
        )
    return None


def read_labels(rows: Any, columns: Columns, request: DataRequest) -> tuple[np.ndarray | None, Classes | None]:
    """The number of each row's class, (N,) int64, and the classes; None where not every row has a label."""
    if columns.label is None:
        return None, None
    labels = rows[columns.label][:]  # a slice, which is one step where single rows would take seconds
    if (position := first_missing(labels)) is not None:
        if request.labels:
            raise missing_label(f"{request.split}[{position}]", request)
        return None, None
    kind = str if labels and isinstance(labels[0], str) else np.int64
    return number_labels(np.asarray(labels, dtype=kind), request.spec, columns.class_names, request.num_classes)


def stream_classes(rows: Any, columns: Columns, request: DataRequest) -> Classes:
    """The classes of a stream: those that the column or the request states, else those of a pass over all labels."""
    assert columns.label is not None
    if columns.class_names is not None:
        return number_classes(range(len(columns.class_names)), request.spec, columns.class_names)
    named = rows.features[columns.label].dtype.endswith("string")
    if request.num_classes is not None and not named:
        return number_classes(range(request.num_classes), request.spec)
    found: set[Label] = set()
    batches = rows.select_columns([columns.label]).iter(batch_size=1000)
    for number, batch in enumerate(tqdm(batches, desc="reading labels", unit="000 rows", delay=2)):
        labels = batch[columns.label]
        if (position := first_missing(labels)) is not None:
            raise missing_label(f"{request.split}[{1000 * number + position}]", request)
        found.update(label if named else int(label) for label in labels)
    return number_classes(found, request.spec)


def first_missing(labels: Iterable[Label | None]) -> int | None:
    """The position of the first label that is withheld: nothing, or a number below 0."""
    missing = (i for i, label in enumerate(labels) if label is None or (not isinstance(label, str) and label < 0))
    return next(missing, None)


def missing_label(row: str, request: DataRequest) -> UsageError:
    """What to say of a row without a label where labels are wanted."""
    return UsageError(f"{row} of {request.spec} has no label: use another split, or train without --class_conditional.")


def _may_be_label(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return True
    types = ("int", "uint", "bool", "string", "large_string")
    return isinstance(feature, datasets.Value) and feature.dtype.rstrip("0123456789") in types
