"""Folders of pipelines that load where our package is not installed, with diffusers and torch alone.

A folder that `save_pretrained` wrote names our classes by our modules, which diffusers takes only if somebody has
imported them. Here every class gets a file of its own, and `model_index.json` names it as diffusers wants it:

    model_index.json                  "_class_name": ["pipeline_ssd_1a2b3c4d", "SSDPipeline"],
                                      "unet": ["modeling_flexi_unet_5e6f7a8b", "FlexiUNet2DModel"], ..
    pipeline_ssd_1a2b3c4d.py
    unet/modeling_flexi_unet_5e6f7a8b.py
    scheduler/scheduling_ssd_9c0d1e2f.py

The files are made from our source, see `merged_source`. Their names end in the first digits of their SHA-256: diffusers
keeps the code of all models of a machine in one folder, by name, where two versions of one name would be mixed.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ..commands.files import write_json
from ..pipelines.saved_files import INDEX, read_object
from .merged_source import Key, classes_in, merged_source
from .pipeline_files import CLASSES
from .source_modules import PACKAGES

DIGITS = 8
"""Of the SHA-256 in the name of a file."""

SUBSTITUTES = {"ssd.pipelines.staged_pipeline": "ssd.publishing.standalone_pipeline"}
"""Modules that have no place in a self-contained folder -> what stands in for them."""

_HEADER = '''\
"""{name}, as scale-space-diffusion {version} defines it, in one file that needs diffusers and torch alone.

Generated from {module} and what it imports: do not edit it. A model is put into a folder with such files by
`python -m ssd.publishing.push`. Where the package is installed, its own modules are used instead of this file.
"""

# SPDX-License-Identifier: Apache-2.0
'''


def add_code(folder: Path, pipeline: type) -> list[Path]:
    """Write the files of code into the folder of a saved pipeline, and name them in its index.

    Parameters
    ----------
    folder : pathlib.Path
        What `save_pretrained` wrote.
    pipeline : type
        The class of the pipeline, one of ours.

    Returns
    -------
    list of pathlib.Path
        The files; none for classes of diffusers.
    """
    index = read_object(folder, INDEX)
    index["_class_name"] = [pipeline.__module__, pipeline.__name__]
    written = []
    for part, entry in index.items():
        if not isinstance(entry, list) or entry[0].split(".")[0] not in PACKAGES:
            continue
        place = folder if part == "_class_name" else folder / part
        text = code_of(entry[0], entry[1], is_part=part != "_class_name")
        file = place / f"{entry[0].rpartition('.')[2]}_{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}.py"
        file.write_text(text, encoding="utf-8")
        index[part] = [file.stem, entry[1]]
        written.append(file)
    write_json(folder / INDEX, index)
    return written


def code_of(module: str, name: str, *, is_part: bool) -> str:
    """The text of the file for a class of ours: a part of a pipeline, or the pipeline itself.

    Raises
    ------
    ValueError
        When a pipeline asks its parts, or what they made, for their classes, which are not those of its own file.
    """
    header = _HEADER.format(name=name, module=module, version=version("scale-space-diffusion"))
    elsewhere, doubles = ((), ()) if is_part else (parts_and_bases(), classes_of_parts())
    return merged_source(module, name, header, elsewhere, doubles, SUBSTITUTES)


def _parts() -> list[type]:
    """The classes of ours that get files as parts of a pipeline."""
    parts = [each for pipeline in CLASSES.values() for known in pipeline.values() for each in known.values()]
    return [each for each in parts if _is_ours(each)]


def _is_ours(each: type) -> bool:
    return each.__module__.split(".")[0] in PACKAGES


def parts_and_bases() -> frozenset[Key]:
    """These classes, and those of ours that they inherit from."""
    ours = {base for each in _parts() for base in each.__mro__ if _is_ours(base)}
    return frozenset((each.__module__, each.__name__) for each in ours)


@cache
def classes_of_parts() -> frozenset[Key]:
    """All classes that the files of parts define."""
    return frozenset().union(*(classes_in(each.__module__, each.__name__) for each in _parts()))
