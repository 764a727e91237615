"""Train Scale Space Diffusion. One file, read from top to bottom.

    accelerate launch train/train_ssd.py --config configs/digits.yaml
    accelerate launch train/train_ssd.py --res 256 --levels 5 --data folder:/path/to/images --out runs/x
    accelerate launch train/train_ssd.py --config configs/digits.yaml --max_steps 100 --dry_run
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml train/train_ssd.py \\
        --config configs/celeba64_4l.yaml --data celeba:/data/celeba

Flags override the YAML file; later ones win. --print_config prints all settings.
SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint and end the run; --resume continues it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from ssd.commands.errors import TrainingStopped, exit_on_usage_error, printable
from ssd.operators.placing import to_device
from ssd.pipelines.guidance import no_class_label
from ssd.process.losses import denoising_loss, normalised_residual, training_pair
from ssd.schedulers.base import ProcessScheduler
from ssd.seeding import seed_torch
from ssd.training.batches import Batch, TrainingBatches
from ssd.training.checkpoints import TrainState
from ssd.training.config import TrainConfig, parse_train_config
from ssd.training.ending import last_words
from ssd.training.engine import (
    announce_compiling,
    freeze_unused,
    make_accelerator,
    whole,
)
from ssd.training.forecast_text import forecast_text
from ssd.training.guard import StepGuard
from ssd.training.held_out import COLUMNS, measure_held_out
from ssd.training.images import Position
from ssd.training.interruption import StopRequest
from ssd.training.launcher import with_launcher_settings
from ssd.training.learning_rate import learning_rate_schedule
from ssd.training.log import CsvTracker, TrainingLog
from ssd.training.release import ssd_release
from ssd.training.run_config import filled
from ssd.training.run_folder import what_is_safe
from ssd.training.samples import save_sample_grid
from ssd.training.saving import RunSaver
from ssd.training.setup import Setup, set_up
from ssd.training.starting import guarded, prepare


def main() -> None:
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    # Everything that can be wrong with the user's input is checked here, before anything is written.
    with exit_on_usage_error(ValueError, OSError):
        config, from_launcher = with_launcher_settings(parse_train_config(description=__doc__))
        accelerator = make_accelerator(config)
        setup = set_up(config, accelerator)
    if accelerator.is_main_process:
        print(setup.summary)
        for note in from_launcher + setup.notes:
            print(printable(f"note: {note}"))
        if config.dry_run:
            print("\n".join(forecast_text(setup, accelerator)))
    if not config.dry_run:
        with guarded(setup, accelerator) as takeover:
            if takeover is not None:
                print(f"note: {takeover}")
            train(start_run(setup, accelerator))
    accelerator.end_training()


@dataclass
class Run:
    """The parts of a run; `state` is what a checkpoint holds."""

    setup: Setup
    config: TrainConfig
    accelerator: Accelerator
    scheduler: ProcessScheduler
    network: torch.nn.Module  # as the engine runs it
    predict: Callable[..., Any]  # the network, or what tells when a route is compiled
    optimizer: Any  # likewise; state.optimizer is AdamW itself
    state: TrainState
    batches: TrainingBatches
    guard: StepGuard
    log: TrainingLog
    bar: tqdm
    learning_rate: Callable[[int], float]  # of a step, as a fraction of --learning_rate
    saver: RunSaver
    first_step: int


def start_run(setup: Setup, accelerator: Accelerator) -> Run:
    """Bring the network to its device and engine, and everything to where the checkpoint left it."""
    config, unet, scheduler, checkpoint = setup.config, setup.unet, setup.scheduler, setup.start.checkpoint
    is_main = accelerator.is_main_process
    freeze_unused(unet, len(scheduler.resolutions))
    prepared = prepare(config, accelerator, unet, checkpoint, "unet")
    network, state, progress = prepared.network, prepared.state, prepared.state.progress
    release = ssd_release(config, state, scheduler, setup.start.changes)
    saver = RunSaver(config, accelerator, state, release, setup.dataset.provenance, setup.start.changes)
    if checkpoint is not None:
        saver.save_pipeline()

    levels = [f"{height}x{width}" for height, width in scheduler.resolutions]
    accelerator.log_with.append(CsvTracker(Path(config.out) / "log.csv", levels, progress.step, COLUMNS))
    accelerator.init_trackers("tensorboard" if config.report_to == "tensorboard" else "scale-space-diffusion")
    return Run(
        setup,
        config,
        accelerator,
        scheduler,
        network,
        predict=announce_compiling(network, unet) if config.compile else network,
        optimizer=prepared.optimizer,
        state=state,
        batches=TrainingBatches(
            config,
            setup.dataset,
            scheduler.process,
            no_class_label(unet) if config.class_conditional else None,
            Position(progress.batches, progress.images),
            accelerator.process_index,
            accelerator.num_processes,
            accelerator.device,
        ),
        guard=StepGuard(state.optimizer, accelerator.scaler is not None, accelerator.device),
        log=TrainingLog(accelerator, levels),
        bar=tqdm(initial=progress.step, total=config.total_steps, desc="training", unit=" steps", disable=not is_main),
        learning_rate=learning_rate_schedule(config, state.optimizer),
        saver=saver,
        first_step=progress.step,
    )


def train(run: Run) -> None:
    """Steps until the last one or until somebody asks to stop; the program never waits for the device, but to log."""
    config, accelerator, state, progress = run.config, run.accelerator, run.state, run.state.progress
    stopped = False
    state.network.train()
    with StopRequest(config.max_minutes) as stop, run.bar:
        while progress.step < config.total_steps and not stopped:
            for group in state.optimizer.param_groups:
                group["lr"] = filled(config.learning_rate) * run.learning_rate(progress.step)
            seed_torch(config.seed, "step", progress.step, accelerator.process_index)  # from which dropout draws
            for left in reversed(range(config.routes_per_step)):
                batch = next(run.batches)
                run.log.add_batch(batch, *add_gradients(run, batch, is_last=left == 0))
                progress.batches, progress.images = batch.end.batches, batch.end.images

            max_norm = config.max_grad_norm or math.inf
            norm = whole(accelerator.clip_grad_norm_(run.network.parameters(), max_norm))
            good = run.guard.judge(norm)  # a step that is not finite is skipped
            run.optimizer.step()
            state.ema.update(map(whole, state.network.parameters()), good)
            run.optimizer.zero_grad(set_to_none=True)  # no gradient at all, rather than zero, for parts that do not run
            run.log.add_step(norm, batch.level if config.routes_per_step == 1 else None)
            progress.step += 1
            stopped = after_step(run, bool(stop))
    words = last_words(config, accelerator, run.setup.dataset, progress, stop)
    if accelerator.is_main_process:
        print("\n".join(words))


def add_gradients(run: Run, batch: Batch, is_last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradients of one batch, in parts that fit the memory; returns its losses and residuals, (B,) each.

    Processes average their gradients once per step, with the last part of its last batch.
    """
    config, accelerator, process = run.config, run.accelerator, batch.process
    prediction_type = run.scheduler.config.prediction_type
    weights = (prediction_type, config.loss, config.max_snr)
    parts, losses, residuals = batch.split(config.micro_batch_size), [], []
    for number, part in enumerate(parts, start=1):
        network_input, target = training_pair(process, part.x_0, part.t, part.noise, prediction_type)
        clean = process.target(part.x_0, part.t)
        with nullcontext() if is_last and number == len(parts) else accelerator.no_sync(run.network):
            output = run.predict(
                network_input,
                to_device(part.t, accelerator.device),
                class_labels=part.labels,
                output_size=part.output_size,
            ).sample
            clipped = clean if config.clipped_loss else None
            losses.append(denoising_loss(process, output, target, part.t, *weights, clipped))
            accelerator.backward(batch.weight * losses[-1].sum() / (len(batch.t) * config.routes_per_step))
        residuals.append(normalised_residual(process, output.detach(), target, clean, part.t, prediction_type))
    return torch.cat(losses).detach(), torch.cat(residuals)


def after_step(run: Run, stop: bool) -> bool:
    """Log, measure, draw samples and save, when it is time; returns whether the run has to stop."""
    config, step = run.config, run.state.progress.step
    last = step == config.total_steps
    held_out = run.setup.held_out if step % config.valid_every == 0 or last else None
    stopping = False
    run.bar.update()
    # Several processes agree about stopping when they log: asking every step would make them wait for each other.
    if step % config.log_every == 0 or last or held_out is not None or (stop and run.accelerator.num_processes == 1):
        row = run.log.row(run.guard.counts, stop)
        values = row.values | {"learning_rate": run.state.optimizer.param_groups[0]["lr"]}
        if held_out is not None:
            average = run.state.ema.networks[0]
            values |= measure_held_out(config, average, run.scheduler, held_out, run.accelerator)
        run.accelerator.log(values, step=step)
        run.bar.set_postfix(loss=f"{row.values['loss']:.4f}", img_s=f"{row.values['images_per_second']:.0f}")
        if row.bad_in_a_row >= (min(config.max_bad_steps, step - run.first_step) if last else config.max_bad_steps):
            raise TrainingStopped(
                f"{row.bad_in_a_row} steps in a row had a gradient that is not finite. "
                f"{what_is_safe(Path(config.out))}: try a lower --learning_rate, or --max_grad_norm 1."
            )
        stopping = row.stop
    if config.sample_every and (step % config.sample_every == 0 or last):
        for name, weights in (("", run.state.ema.networks[0]), ("_raw", run.state.network)):
            path = Path(config.out) / "samples" / f"step_{step:08d}{name}.png"
            save_sample_grid(config, run.accelerator, weights, run.scheduler, path)
        run.state.network.train()
    if step % config.save_every == 0 or last or stopping:
        run.saver.save()
    return stopping


if __name__ == "__main__":
    main()
