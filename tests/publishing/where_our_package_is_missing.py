"""Run by a test in a process that cannot import our packages: loads folders, draws, saves, loads again, draws.

    python where_our_package_is_missing.py FOLDER THREADS

FOLDER/models.json says by kind which pipelines are loaded, and how each is called. Images go into
FOLDER/KIND.safetensors.
"""

import json
import sys
from pathlib import Path

OURS = ("ssd", "flexi_unet", "vdvae")


class Missing:
    """An import hook for which our packages do not exist."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())

import torch  # noqa: E402
from diffusers import DiffusionPipeline  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


def load(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, arguments):
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    return pipeline(2, generator=generators, output_type="pt", **arguments).images.contiguous()


def main(root, threads):
    torch.set_num_threads(threads)
    models = json.loads((root / "models.json").read_text())
    first = {kind: load(model) for kind, (model, _) in models.items()}
    images = {kind: {"loaded": draw(first[kind], arguments)} for kind, (_, arguments) in models.items()}
    for kind, (model, arguments) in models.items():
        again = load(model)  # diffusers runs the code again
        images[kind]["second"] = draw(again, arguments)
        images[kind]["first, after a second"] = draw(first[kind], arguments)
        again.save_pretrained(root / "saved" / kind)
        images[kind]["saved"] = draw(load(root / "saved" / kind), arguments)
        save_file(images[kind], root / f"{kind}.safetensors")
    assert not any(name.split(".")[0] in OURS for name in sys.modules)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
