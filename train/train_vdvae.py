"""Train VDVAE, or WS-VDVAE, which applies its blocks several times. One file, read from top to bottom.

    accelerate launch train/train_vdvae.py --config configs/vdvae/digits_ws.yaml
    accelerate launch train/train_vdvae.py --config configs/vdvae/digits.yaml --dec_blocks 1x1,4m1,4x3,8m4,8x3
    accelerate launch train/train_vdvae.py --config configs/vdvae/cifar10.yaml --dry_run
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml train/train_vdvae.py \\
        --config configs/vdvae/celeba64_ws.yaml --data celeba:/data/celeba

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
from ssd.training.checkpoints import TrainState
from ssd.training.ending import last_words
from ssd.training.engine import make_accelerator
from ssd.training.guard import StepGuard
from ssd.training.images import Position
from ssd.training.interruption import StopRequest
from ssd.training.launcher import with_launcher_settings
from ssd.training.learning_rate import learning_rate_schedule
from ssd.training.log import CsvTracker
from ssd.training.run_config import filled
from ssd.training.run_folder import what_is_safe
from ssd.training.saving import RunSaver
from ssd.training.starting import guarded, prepare
from ssd.training.vdvae.batches import VDVAEBatch, VDVAEBatches
from ssd.training.vdvae.config import BETAS, NEVER, VDVAETrainConfig, parse_vdvae_config
from ssd.training.vdvae.held_out import held_out_bound
from ssd.training.vdvae.log import COLUMNS, BoundLog
from ssd.training.vdvae.release import vdvae_release
from ssd.training.vdvae.samples import save_vdvae_grid
from ssd.training.vdvae.setup import PART, VDVAESetup, set_up_vdvae
from vdvae import ElboTerms


def main() -> None:
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    # Everything that can be wrong with the user's input is checked here, before anything is written.
    with exit_on_usage_error(ValueError, OSError):
        config, from_launcher = with_launcher_settings(parse_vdvae_config(description=__doc__))
        accelerator = make_accelerator(config)
        setup = set_up_vdvae(config, accelerator)
    if accelerator.is_main_process:
        print(setup.summary)
        for note in from_launcher + setup.notes:
            print(printable(f"note: {note}"))
    if not config.dry_run:
        with guarded(setup, accelerator) as takeover:
            if takeover is not None:
                print(f"note: {takeover}")
            train(start_run(setup, accelerator))
    accelerator.end_training()


@dataclass
class Run:
    """The parts of a run; `state` is what a checkpoint holds."""

    setup: VDVAESetup
    config: VDVAETrainConfig
    accelerator: Accelerator
    network: torch.nn.Module  # as the engine runs it
    optimizer: Any  # likewise; state.optimizer is AdamW itself
    state: TrainState
    batches: VDVAEBatches
    guard: StepGuard
    log: BoundLog
    bar: tqdm
    learning_rate: Callable[[int], float]  # of a step, as a fraction of --learning_rate
    saver: RunSaver
    first_step: int


def start_run(setup: VDVAESetup, accelerator: Accelerator) -> Run:
    """Bring the network to its device and engine, and everything to where the checkpoint left it."""
    config, checkpoint, device = setup.config, setup.start.checkpoint, accelerator.device
    prepared = prepare(config, accelerator, setup.network, checkpoint, PART, BETAS)
    state, progress = prepared.state, prepared.state.progress
    release = vdvae_release(config, state, setup.start.changes)
    saver = RunSaver(config, accelerator, state, release, setup.dataset.provenance, setup.start.changes)
    if checkpoint is not None:
        saver.save_pipeline()

    accelerator.log_with.append(CsvTracker(Path(config.out) / "log.csv", [], progress.step, COLUMNS))
    accelerator.init_trackers("tensorboard" if config.report_to == "tensorboard" else "vdvae")
    threshold = None if config.skip_threshold == NEVER else config.skip_threshold
    is_main = accelerator.is_main_process
    return Run(
        setup,
        config,
        accelerator,
        prepared.network,
        optimizer=prepared.optimizer,
        state=state,
        batches=VDVAEBatches(
            config,
            setup.dataset,
            setup.network.latent_shapes,
            Position(progress.batches, progress.images),
            accelerator.process_index,
            accelerator.num_processes,
            device,
        ),
        guard=StepGuard(state.optimizer, False, device, threshold),
        log=BoundLog(accelerator),
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
            batch = next(run.batches)
            terms = add_gradients(run, batch)
            run.log.add_batch(batch, terms)
            progress.batches, progress.images = batch.end.batches, batch.end.images

            max_norm = config.max_grad_norm or math.inf
            norm = accelerator.clip_grad_norm_(run.network.parameters(), max_norm)  # the norm before the clipping
            bound = accelerator.reduce(terms.elbo.mean(), reduction="mean")
            good = run.guard.judge(torch.where(bound.isfinite(), norm, torch.nan))  # the same on all processes
            run.optimizer.step()
            state.ema.update(state.network.parameters(), good)
            run.optimizer.zero_grad(set_to_none=True)
            run.log.add_norm(norm)
            progress.step += 1
            stopped = after_step(run, bool(stop))
    words = last_words(config, accelerator, run.setup.dataset, progress, stop)
    if accelerator.is_main_process:
        print("\n".join(words))


def add_gradients(run: Run, batch: VDVAEBatch) -> ElboTerms:
    """Add the gradients of a batch, in parts that fit the memory; returns the bound of its images.

    The loss is the bound in nats per dimension, averaged over the images. Processes average their gradients with the
    last part.
    """
    parts, found = batch.split(run.config.micro_batch_size), []
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else run.accelerator.no_sync(run.network):
            terms = run.network(part.images, part.noise)
            run.accelerator.backward(terms.elbo.sum() / len(batch.images))
        found.append((terms.nll.detach(), terms.kl.detach()))
    nll, kl = map(torch.cat, zip(*found))
    return ElboTerms(nll=nll, kl=kl)


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
            values |= held_out_bound(average, held_out, run.accelerator, config.micro_batch_size)
        run.accelerator.log(values, step=step)
        run.bar.set_postfix(bits=f"{values['loss']:.4f}", img_s=f"{values['images_per_second']:.0f}")
        if row.bad_in_a_row >= (min(config.max_bad_steps, step - run.first_step) if last else config.max_bad_steps):
            raise TrainingStopped(
                f"{row.bad_in_a_row} steps in a row were skipped: their gradients were not finite, or not below "
                f"--skip_threshold {config.skip_threshold:g}. {what_is_safe(Path(config.out))}: try a lower "
                "--learning_rate, or a higher --skip_threshold."
            )
        stopping = row.stop
    if config.sample_every and (step % config.sample_every == 0 or last):
        for temperature in dict.fromkeys((1.0, config.sample_temperature)):
            path = Path(config.out) / "samples" / f"step_{step:08d}_temperature_{temperature:g}.png"
            save_vdvae_grid(run.state.ema.networks[0], run.accelerator, config.seed, temperature, path)
    if step % config.save_every == 0 or last or stopping:
        run.saver.save()
    return stopping


if __name__ == "__main__":
    main()
