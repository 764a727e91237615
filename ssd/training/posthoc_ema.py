"""Choose the width of the averaged weights after training: a pipeline of any width from the averages that a run stored.

    accelerate launch train/train_ssd.py --config configs/digits.yaml --posthoc_widths '[0.05, 0.1]' --out runs/x
    python -m ssd.training.posthoc_ema --run runs/x --width 0.08 --out runs/x_0.08
    python -m ssd.training.posthoc_ema --run runs/x --width 0.15 --step 800 --out runs/x_early

The width is the standard deviation of the average in time, relative to the length of training: 0.1 averages about the
last fifth of it. Wide averages are smooth, narrow ones recent; which is best depends on the data and the metric, so try
some and compare them with sample/eval_fid.py or sample/eval_nll.py. Mathematics: `ssd.training.power_average`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.output_paths import check_output_folder
from ..commands.parser import CommandParser
from ..pipeline_vdvae import VDVAEPipeline
from ..publishing.saving import load_any_pipeline, save_pipeline
from .power_average import WIDEST, Profile, coefficients, exponent_of
from .stored_averages import StoredAverage, stored_averages

INEXACT = 0.1
"""Of the profile's norm: an error above it is worth a warning."""


@dataclass(frozen=True, kw_only=True)
class PosthocConfig:
    """Settings of the command.

    Parameters
    ----------
    run : str
        The folder of a training run with --posthoc_widths.
    width : float
        The relative width of the average, in (0, 0.2887).
    out : str
        The folder for the pipeline, new or empty.
    step : int, optional
        The training step at which the average ends. Default: the last at which averages were stored.
    """

    run: str
    width: float
    out: str
    step: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.width < WIDEST:
            raise UsageError(f"--width must be in (0, {WIDEST:.4f}), got {self.width}.")


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` default to those of the process."""
    parser = CommandParser(prog="python -m ssd.training.posthoc_ema", description=__doc__)
    parser.add_class_arguments(PosthocConfig)
    with exit_on_usage_error(OSError):
        config = PosthocConfig(**parser.parse_args(arguments).as_dict())
        out = Path(config.out)
        check_output_folder(out, "--out")
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out {out} is not empty: give a new or an empty folder.")
        pipeline = load_any_pipeline(config.run, "cpu")
        network = pipeline.vdvae if isinstance(pipeline, VDVAEPipeline) else pipeline.unet
        stored, wanted = choose(stored_averages(Path(config.run)), config.width, config.step)
        shares, error = coefficients([each.profile for each in stored], wanted)
        load_weights(network, combine(stored, shares.tolist()))
        save_pipeline(pipeline, out, card(Path(config.run), config, stored[-1].step))
    print(f"The profile is met to {error:.2%} of its norm, by {len(stored)} stored averages.")  # noqa: T201
    if error > INEXACT:
        print(  # noqa: T201
            "warning: that is not near: store averages more often (--save_every), or choose a width between the stored "
            "ones."
        )
    print(f"wrote {out}/")  # noqa: T201


def choose(stored: Sequence[StoredAverage], width: float, step: int | None) -> tuple[list[StoredAverage], Profile]:
    """The averages up to a step, and the profile that ends there.

    Raises
    ------
    UsageError
        For a step at which nothing was stored.
    """
    steps = sorted({each.step for each in stored})
    last = steps[-1] if step is None else step
    if last not in steps:
        raise UsageError(f"--step {step} has no stored averages: there are those of {', '.join(map(str, steps))}.")
    used = [each for each in stored if each.step <= last]
    different = list({each.profile: each for each in used}.values())  # a run that stopped stores its last step twice
    return different, Profile(exponent_of(width), max(each.profile.updates for each in used))


def combine(stored: Sequence[StoredAverage], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """The sum of the stored weights times their shares, in float64 and rounded once."""
    total: dict[str, torch.Tensor] = {}
    for each, share in tqdm(list(zip(stored, shares)), "averages", delay=2):
        for name, weight in each.weights().items():
            total[name] = total.get(name, 0) + share * weight.double()
    return {name: weight.float() for name, weight in total.items()}


def load_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put the weights into a network, whose buffers stay."""
    own = dict(network.named_parameters())
    wrong = [name for name in own.keys() | weights.keys() if name not in own or name not in weights]
    wrong += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if wrong:
        raise UsageError(f"The stored averages are of another network than the run's pipeline, such as in {wrong[0]}.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def card(run: Path, config: PosthocConfig, step: int) -> str:
    """The run's card, with where these weights come from."""
    path = run / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else "# A model\n"
    line = f"- Weights: power-function average of relative width {config.width:g}, up to step {step}"
    replaced, count = re.subn(r"^- Weights: .*$", line, text, flags=re.MULTILINE)
    return replaced if count else f"{text}\n{line}\n"


if __name__ == "__main__":
    main()
