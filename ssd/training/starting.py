"""What every run starts with, whatever it trains: checked on all processes, and brought to where it continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.lock import hold_folder
from ..data import ImageStream, open_dataset
from ..data.dataset import ImageDataset
from .checkpoints import TrainState, load_networks, load_optimizer
from .ema import EmaNetworks
from .engine import check_agreement, end_with_the_others, share_weights
from .memory import stop_when_memory_is_full
from .run_config import RunConfig, filled, images_per_batch
from .run_folder import Continuation, look_into, prepare_out_folder
from .saving import stop_when_the_disk_is_full


@dataclass
class RunSetup:
    """What a run starts with; a kind of model adds its parts.

    Attributes
    ----------
    config : RunConfig
    dataset : ImageDataset or ImageStream
    start : Continuation
        What to resume from.
    notes : list of str
        What people should know.
    """

    config: RunConfig
    dataset: ImageDataset | ImageStream
    start: Continuation
    notes: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same on all processes."""
        provenance = self.dataset.provenance
        checkpoint = self.start.checkpoint
        facts = {"the checkpoint to resume": checkpoint and checkpoint.name}
        facts |= {f"the data's {name}": value for name, value in provenance.items()}
        return facts | {f"--{name}": value for name, value in asdict(self.config).items()}


AnySetup = TypeVar("AnySetup", bound=RunSetup)


def agreed(make: Callable[[], AnySetup], accelerator: Accelerator) -> AnySetup:
    """The setup that `make` gives.

    Raises
    ------
    UsageError
        On all processes, if one finds something wrong or they disagree.
    """
    setup, problem = None, None
    try:
        setup = make()
        facts = setup.facts if accelerator.num_processes > 1 else {}
    except (ValueError, OSError) as error:
        facts, problem = {}, str(error)
    check_agreement(accelerator, facts, problem)
    assert setup is not None  # else there was a problem
    return setup


def open_images(config: RunConfig, **labels: Any) -> ImageDataset | ImageStream:
    """The data set that `config` names; `labels`: what `open_dataset` takes about classes."""
    return open_dataset(
        config.data,
        config.sample_size,
        config.crop_preset,
        skip_bad_images=config.skip_bad_images,
        background=config.background,
        allow_pipe=config.allow_pipe,
        channels=config.channels,
        **labels,
    )


@contextmanager
def claim_folder(setup: RunSetup, accelerator: Accelerator) -> Iterator[str | None]:
    """Be the only run that writes into --out, and make sure that it is still as `set_up` found it.

    Yields
    ------
    str or None
        A note, where the folder was left by a process that was killed.

    Raises
    ------
    UsageError
        On all processes, when another run has the folder or had it meanwhile.
    """
    with ExitStack() as stack:
        note: str | None = None
        problem: str | None = None
        try:
            if accelerator.is_main_process:
                note = stack.enter_context(hold_folder(setup.config.out))
                if look_into(Path(setup.config.out)) != setup.start.found:
                    raise UsageError(f"Another run was in {setup.config.out} meanwhile: start this one again.")
        except (ValueError, OSError) as error:
            problem = str(error)
        check_agreement(accelerator, {}, problem)
        yield note


def copy_weights(network: ModelMixin, source: ModelMixin, model: str) -> None:
    """Start a network from the weights of another one with the same architecture, that of the pipeline `model`."""
    weights, own = source.state_dict(), network.state_dict()
    wrong = [key for key, value in own.items() if key not in weights or weights[key].shape != value.shape]
    wrong += [key for key in weights if key not in own]
    if wrong:
        raise UsageError(
            f"--init_from {model} has another architecture: {len(wrong)} tensors differ, such as {sorted(wrong)[0]}. "
            "Use its widths and layers."
        )
    network.load_state_dict(weights)


@contextmanager
def guarded(setup: RunSetup, accelerator: Accelerator) -> Iterator[str | None]:
    """Train in here: alone in --out, and every failure that can be foreseen is one line.

    Yields
    ------
    str or None
        A note, where the folder was left by a process that was killed.
    """
    with (
        exit_on_usage_error(),
        claim_folder(setup, accelerator) as takeover,
        end_with_the_others(accelerator),
        stop_when_the_disk_is_full(Path(setup.config.out)),
        stop_when_memory_is_full(setup.config, accelerator.num_processes),
    ):
        yield takeover


@dataclass
class Prepared:
    """A network with its optimizer, as the engine runs them, where the checkpoint left them.

    Attributes
    ----------
    network : torch.nn.Module
        Under FSDP the weights of `state.network` are its shards.
    optimizer : optimizer of accelerate
        `state.optimizer` is AdamW itself.
    state : TrainState
    """

    network: torch.nn.Module
    optimizer: Any
    state: TrainState


def prepare(
    config: RunConfig,
    accelerator: Accelerator,
    network: ModelMixin,
    checkpoint: Path | None,
    part: str,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Prepared:
    """Bring a network to its device and engine, and everything to where the checkpoint left it; write --out.

    Parameters
    ----------
    config : RunConfig
    accelerator : Accelerator
    network : ModelMixin
    checkpoint : pathlib.Path, optional
    part : str
        What the network is called in its pipeline.
    betas : (float, float)
        Of AdamW.
    """
    device = accelerator.device
    if accelerator.is_main_process:
        prepare_out_folder(config, resuming=checkpoint is not None)
    accelerator.wait_for_everyone()

    network.to(device)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    share_weights(network)
    place = torch.device("cpu") if config.ema_on_cpu else device
    ema = EmaNetworks(network, config.ema_decays, place, config.posthoc_widths)
    if checkpoint is not None:
        load_networks(checkpoint, network, ema, part)
    learning_rate = filled(config.learning_rate)
    adamw = torch.optim.AdamW(network.parameters(), learning_rate, betas, weight_decay=config.weight_decay, fused=True)
    engine_network, optimizer = accelerator.prepare(network, adamw)
    state = TrainState(network, ema, adamw, accelerator.scaler, part=part)
    if checkpoint is not None:
        load_optimizer(checkpoint, state)
    state.progress.global_batch = images_per_batch(config, accelerator.num_processes) * accelerator.num_processes
    return Prepared(engine_network, optimizer, state)
