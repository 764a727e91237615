"""The model card of a repository on the Hub: a run's card, with what others than its owner need to know.

The card of the folder is kept, also where its owner edited it, but for the sections that this file writes: how the
model is loaded from the Hub, samples, metrics. No path of this machine stays in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData

SAMPLES, ANIMATION = "samples.png", "coarse_to_fine.gif"

_NAME = r"[^\s/\\,;\"'`)\]}]+"
_PATH = re.compile(rf"(?<![\w/.<])~?/(?:{_NAME}/)*({_NAME})/?|\b[A-Za-z]:\\(?:{_NAME}\\)*({_NAME})")
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)

_USE = """\
With diffusers and torch alone (`pip install torch diffusers`); `trust_remote_code=True` runs the files of
code in this repository, so read them first:

```python
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("{repo_id}", trust_remote_code=True)
images = pipeline({arguments}).images
```

With the package scale-space-diffusion (`pip install .` in a checkout of its source), which runs no code of this
repository and checks the weights' digests:

```python
from ssd import {pipeline}
pipeline = {pipeline}.from_pretrained("{repo_id}")
images = pipeline({arguments}).images
```
"""

_TO_THE_OWNER, _TO_OTHERS = "The weights are yours; mind", "No licence is stated here; mind"
"""How a run's card speaks of the licence, and how the Hub's does."""

_SHOWN = "Image i was drawn with the seed ({seed}, i); none was chosen.\n\n![samples]({samples})\n"
_GROWING = "\n![from coarse to fine]({animation})\n"


def hub_card(
    card: str,
    repo_id: str,
    pipeline: str,
    *,
    arguments: str = "batch_size=4",
    seed: int | None = None,
    animated: bool = False,
    report: Mapping[str, Any] | None = None,
    licence: str | None = None,
) -> str:
    """Text of the card.

    Parameters
    ----------
    card : str
        The card of the model's folder, or one that `model_card` makes.
    repo_id : str
        user/name.
    pipeline : str
        The name of its class.
    arguments : str
        Of the call in the examples.
    seed : int, optional
        Of the sample images; None where there are none.
    animated : bool
        Whether there is an animation.
    report : mapping, optional
        The content of an evaluation's report.json.
    licence : str, optional
        The licence of the weights, as the Hub names it: "apache-2.0", "cc-by-4.0", "other", ..
    """
    parsed = ModelCard(card, ignore_metadata_errors=True)
    data = cast(ModelCardData, parsed.data)
    data.library_name, data.pipeline_tag = "diffusers", "unconditional-image-generation"
    data.license = licence or data.license
    data.tags = list(dict.fromkeys([*(data.tags or []), "scale-space-diffusion", "diffusers"]))
    written = {"Use": _USE.format(repo_id=repo_id, arguments=arguments, pipeline=pipeline)}
    if seed is not None:
        written["Samples"] = _SHOWN.format(seed=seed, samples=SAMPLES)
        written["Samples"] += _GROWING.format(animation=ANIMATION) if animated else ""
    if report is not None:
        written["Metrics"] = metrics_section(report)
    text = with_sections(without_paths(parsed.text.replace(_TO_THE_OWNER, _TO_OTHERS)), written)
    if licence:
        text = with_sections(text, {"Licence": f"{licence}\n"})
    return f"---\n{data.to_yaml()}\n---\n{text}"


def with_sections(text: str, written: Mapping[str, str]) -> str:
    """Markdown with some sections replaced, or where they are missing, added after the first of `written`.

    Examples
    --------
    >>> card = "# A\\n\\n## Use\\n\\nold\\n\\n## Origin\\n\\nkept\\n"
    >>> print(with_sections(card, {"Use": "new\\n", "More": "2\\n"}), end="")
    # A
    <BLANKLINE>
    ## Use
    <BLANKLINE>
    new
    <BLANKLINE>
    ## More
    <BLANKLINE>
    2
    <BLANKLINE>
    ## Origin
    <BLANKLINE>
    kept
    """
    before, *rest = _SECTION.split(text)
    sections = dict(zip(rest[::2], rest[1::2]))
    first = next(iter(written))
    order = list(sections) if first in sections else [first, *sections]
    place = order.index(first) + 1
    order[place:place] = [name for name in written if name not in order]
    sections |= {name: f"\n\n{content}\n" for name, content in written.items()}
    return before + "".join(f"## {name}{sections[name]}" for name in order).rstrip() + "\n"


def without_paths(text: str) -> str:
    """Text in which absolute paths of a machine are their last names.

    Examples
    --------
    >>> without_paths("Data: folder:/home/me/cats, see https://arxiv.org/abs/2603.08709 and docs/data.md")
    'Data: folder:cats, see https://arxiv.org/abs/2603.08709 and docs/data.md'
    """
    return _PATH.sub(lambda found: found[1] or found[2], text)


def metrics_section(report: Mapping[str, Any]) -> str:
    """The numbers of a report in a table, and how they were measured."""
    numbers = {name: value for name, value in report["metrics"].items() if isinstance(value, (int, float))}
    rows = [f"| {name} | {f'{value:.4g}' if isinstance(value, float) else value} |" for name, value in numbers.items()]
    samples, reference = report.get("samples", {}), report["protocol"].get("reference", {})
    told = {
        "Reference": reference.get("spec") if isinstance(reference, Mapping) else reference,
        "Sampler": samples.get("sampler"),
        "Steps": samples.get("steps"),
        "Eta": samples.get("eta"),
        "Seed": samples.get("seed"),
        "Measured by": (report.get("commands") or [None])[0],
    }
    listed = [f"- {name}: {without_paths(str(value))}" for name, value in told.items() if value is not None]
    warnings = [f"- Note: {without_paths(str(warning))}" for warning in report.get("warnings", ())]
    return "\n".join(["| metric | value |", "|---|---|", *rows, "", *listed, *warnings]) + "\n"


def check_report(report: Any) -> None:
    """Raise a ValueError unless this is the content of an evaluation's report.json."""
    wanted = ("metrics", "protocol")
    if not isinstance(report, Mapping) or not all(isinstance(report.get(key), Mapping) for key in wanted):
        raise ValueError("it is not the report.json of an evaluation, with metrics and a protocol.")
