"""The names of a network's classes, and which class embedding stands for "no class", as its configuration says it."""

from __future__ import annotations

from typing import Any

NO_SUCH_LABEL = -1
"""In a configuration: no class embedding stands for "no class"."""


class NamedClasses:
    """What a network with `id2label` in its configuration inherits."""

    config: Any

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes in the order of their labels, without "no class"; None where they are not known."""
        names = self.config.id2label
        return None if names is None else [names[label] for label in sorted(names)]


def check_no_class(no_class_label: int | None, num_class_embeds: int | None) -> None:
    """Raise a ValueError unless the label of "no class" is the last class embedding, -1 for none, or not stated."""
    last = (num_class_embeds or 0) - 1
    if no_class_label not in (None, NO_SUCH_LABEL, last) or (no_class_label is not None and not num_class_embeds):
        allowed = f'the last class embedding, {last}, or -1, where none means "no class"'
        raise ValueError(
            f"no_class_label must be {allowed if num_class_embeds else 'left out without num_class_embeds'}, got "
            f"{no_class_label}."
        )


def checked_names(
    id2label: dict[Any, str], num_class_embeds: int | None, no_class_label: int | None = None
) -> dict[int, str]:
    """The names by integer labels, ascending; a ValueError unless every class but "no class" has one."""
    if not num_class_embeds:
        raise ValueError("id2label names classes, but this network has none: give num_class_embeds, too.")
    has_no_class = no_class_label != NO_SUCH_LABEL
    expected = list(range(max(1, num_class_embeds - has_no_class)))
    try:
        names = {int(label): name for label, name in id2label.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"id2label must be a mapping of integers to names, got {id2label!r}.") from None
    if sorted(names) != expected or len(names) != len(id2label):
        besides = ', of which the last means "no class"' if has_no_class else ""
        raise ValueError(
            f"id2label must name the classes 0..{expected[-1]} of num_class_embeds={num_class_embeds}{besides}; got "
            f"{len(id2label)} names, for {list(id2label)[:5]}."
        )
    if not all(isinstance(name, str) for name in names.values()):
        raise ValueError("The names in id2label must be texts.")
    return dict(sorted(names.items()))
