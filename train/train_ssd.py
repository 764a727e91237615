"""Train Scale Space Diffusion. One file, read from top to bottom.

    accelerate launch train/train_ssd.py --config configs/digits.yaml
    accelerate launch train/train_ssd.py --res 256 --levels 5 --data folder:/path/to/images --out runs/x
    accelerate launch train/train_ssd.py --config configs/digits.yaml --max_steps 100 --dry_run true

Flags override the YAML file; later ones win. --print_config prints all settings.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.data import open_dataset
from ssd.data.order import EndlessShuffle
from ssd.errors import exit_on_usage_error
from ssd.losses import min_snr_loss, training_pair
from ssd.pictures import image_grid
from ssd.seeding import numpy_generator, torch_generator
from ssd.training.checkpoints import TrainState, load_checkpoint, save_checkpoint, save_pipeline
from ssd.training.config import TrainConfig, build_scheduler, build_unet, parse_train_config
from ssd.training.logs import LossLog
from ssd.training.routes import RouteSampler
from ssd.training.run_folder import check_out_folder, prepare_out_folder
from ssd.training.summary import summarize


def main() -> None:
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    # Everything that can be wrong with the user's input is checked here, before anything is written.
    with exit_on_usage_error(ValueError, OSError):
        config = parse_train_config(description=__doc__)
        torch.manual_seed(config.seed)  # of the network's first weights
        checkpoint = check_out_folder(config)
        unet = build_unet(config)
        scheduler = build_scheduler(config)
        dataset = open_dataset(config.data, config.res)
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            log_with="tensorboard",
            project_dir=config.out,
            # A route uses only its part of the network.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) // accelerator.num_processes
        torch.set_num_threads(config.cpu_threads or max(1, cores))
    if accelerator.is_main_process:
        print(summarize(config, unet, scheduler, len(dataset)))  # type: ignore[arg-type]
    if config.dry_run:
        return
    with exit_on_usage_error():
        train(config, accelerator, unet, scheduler, dataset, checkpoint)


def train(
    config: TrainConfig,
    accelerator: Accelerator,
    unet: FlexiUNet2DModel,
    scheduler: SSDScheduler,
    dataset: Dataset,
    checkpoint: Path | None,
) -> None:
    device, is_main = accelerator.device, accelerator.is_main_process
    process = scheduler.process
    out = Path(config.out)
    if is_main:
        prepare_out_folder(config, resuming=checkpoint is not None)
    accelerator.wait_for_everyone()

    # The average lives in a second network of the same shape, which is also the one that is sampled and saved.
    ema_unet = copy.deepcopy(unet).eval().requires_grad_(False).to(device)
    ema = EMAModel(unet.parameters(), config.ema_decay, use_ema_warmup=True, power=3 / 4, foreach=True)
    ema.shadow_params = [p.requires_grad_(False) for p in ema_unet.parameters()]
    optimizer = torch.optim.AdamW(unet.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    state = TrainState(unet.to(device), ema_unet, optimizer)
    if checkpoint is not None:
        load_checkpoint(state, checkpoint)
        ema.optimization_step = state.ema_updates
    network, optimizer = accelerator.prepare(unet, optimizer)

    images = batches(config, accelerator, dataset, first_step=state.step)
    routes = RouteSampler(process.resolution, config.seed)
    log = None
    if is_main:
        log = LossLog(out / "log.csv", [f"loss_{h}x{w}" for h, w in scheduler.resolutions], state.step)
    accelerator.init_trackers("tensorboard")

    progress = tqdm(
        range(state.step, config.total_steps),
        initial=state.step,
        total=config.total_steps,
        desc="training",
        unit=" steps",
        disable=not is_main,
    )
    network.train()
    for step in progress:
        x_0 = flip(next(images).to(device), config, step, accelerator.process_index)
        batch = routes.draw(step, len(x_0), accelerator.process_index)
        t = batch.timesteps
        size = process.size(t)
        generator = torch_generator(config.seed, "noise", step, accelerator.process_index)
        noise = torch.randn(*x_0.shape[:2], *size, generator=generator).to(device)
        x_t, target = training_pair(process, x_0, t, noise)

        with accelerator.autocast():
            prediction = network(x_t, t.to(device), output_size=batch.output_size).sample
        loss = min_snr_loss(process, prediction, target, t, config.max_snr).mean()
        accelerator.backward(loss)
        if config.max_grad_norm > 0:
            accelerator.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # no gradient at all, rather than zero, for parts that do not run
        ema.step(unet.parameters())
        state.step, state.ema_updates = step + 1, ema.optimization_step

        if not is_main or log is None:
            continue
        log.add(batch.level, loss.detach(), len(x_0) * accelerator.num_processes)
        last = state.step == config.total_steps
        if state.step % config.log_every == 0 or last:
            numbers = log.write(state.step)
            accelerator.log(numbers, step=state.step)
            progress.set_postfix(loss=f"{numbers['loss']:.4f}", img_s=f"{numbers['images_per_second']:.0f}")
        if config.sample_every and (state.step % config.sample_every == 0 or last):
            sample_grid(config, ema_unet, scheduler, out / "samples" / f"step_{state.step:08d}.png")
        if state.step % config.save_every == 0 or last:
            save_checkpoint(state, out / "checkpoints", config.keep)
            save_pipeline(SSDPipeline(ema_unet, scheduler), out)
    accelerator.end_training()
    if is_main:
        print(f"Finished {config.total_steps} steps: {out}/ holds the pipeline, samples/, log.csv and checkpoints/.")


def batches(config: TrainConfig, accelerator: Accelerator, dataset: Dataset, first_step: int) -> Iterator[torch.Tensor]:
    """Endless batches of clean images (B, 3, R, R) for this process, beginning at `first_step`."""
    order = EndlessShuffle(
        len(dataset),  # type: ignore[arg-type]
        config.batch_size,
        config.seed,
        first_step,
        accelerator.process_index,
        accelerator.num_processes,
    )
    loader = DataLoader(
        dataset,
        config.batch_size,
        sampler=order,
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=config.num_workers > 0,
    )
    for batch in loader:
        yield batch["image"]


def flip(x_0: torch.Tensor, config: TrainConfig, step: int, rank: int) -> torch.Tensor:
    """Mirror about half of the images left to right."""
    if not config.random_flip:
        return x_0
    mirrored = torch.from_numpy(numpy_generator(config.seed, "flip", step, rank).random(len(x_0)) < 0.5)
    return torch.where(mirrored.to(x_0.device).view(-1, 1, 1, 1), x_0.flip(-1), x_0)


def sample_grid(config: TrainConfig, ema_unet: FlexiUNet2DModel, scheduler: SSDScheduler, path: Path) -> None:
    """Draw 64 images with the averaged weights, always from the same noise."""
    pipeline = SSDPipeline(ema_unet, copy.deepcopy(scheduler))
    pipeline.set_progress_bar_config(desc="sampling", leave=False)
    generator = torch_generator(config.seed, "samples")
    steps = max(config.sample_steps, config.levels)
    (images,) = pipeline(64, num_inference_steps=steps, generator=generator, output_type="latent", return_dict=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    image_grid(images).save(path)


if __name__ == "__main__":
    main()
