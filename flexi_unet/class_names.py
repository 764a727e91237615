"""The names of a network's classes, which its configuration holds as `id2label`."""

from __future__ import annotations

from typing import Any


class NamedClasses:
    """What a network with `id2label` in its configuration inherits."""

    config: Any

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes in the order of their labels, without "no class"; None where they are not known."""
        names = self.config.id2label
        return None if names is None else [names[label] for label in sorted(names)]


def checked_names(id2label: dict[Any, str], num_class_embeds: int | None) -> dict[int, str]:
    """The names by integer labels, ascending; a ValueError unless every class but "no class" has one."""
    if not num_class_embeds:
        raise ValueError("id2label names classes, but this network has none: give num_class_embeds, too.")
    expected = list(range(max(1, num_class_embeds - 1)))
    try:
        names = {int(label): name for label, name in id2label.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"id2label must be a mapping of integers to names, got {id2label!r}.") from None
    if sorted(names) != expected or len(names) != len(id2label):
        raise ValueError(
            f"id2label must name the classes 0..{expected[-1]} of num_class_embeds={num_class_embeds}, of which the "
            f'last means "no class"; got {len(id2label)} names, for {list(id2label)[:5]}.'
        )
    if not all(isinstance(name, str) for name in names.values()):
        raise ValueError("The names in id2label must be texts.")
    return dict(sorted(names.items()))
