"""Train Scale Space Diffusion. One file, read from top to bottom.

    accelerate launch train/train_ssd.py --config configs/digits.yaml
    accelerate launch train/train_ssd.py --res 256 --levels 5 --data folder:/path/to/images --out runs/x
    accelerate launch train/train_ssd.py --config configs/digits.yaml --max_steps 100 --dry_run true
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml train/train_ssd.py \\
        --config configs/celeba64_4l.yaml --data celeba:/data/celeba

Flags override the YAML file; later ones win. --print_config prints all settings.
SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint and end the run; --resume true continues it.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from flexi_unet import FlexiUNet2DModel
from ssd import SSDPipeline, SSDScheduler
from ssd.commands.errors import TrainingStopped, UsageError, exit_on_usage_error
from ssd.data import open_dataset
from ssd.data.stream import ImageStream
from ssd.process.losses import min_snr_loss, training_pair
from ssd.publishing.saving import save_pipeline
from ssd.sampling.compiling import compile_network
from ssd.sampling.pictures import image_grid
from ssd.seeding import numpy_generator, torch_generator
from ssd.training.checkpoints import (
    TrainState,
    find_newest,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from ssd.training.config import TrainConfig, build_scheduler, build_unet, load_weights, parse_train_config
from ssd.training.distributed import any_process, average_gradients
from ssd.training.ema import EmaNetworks
from ssd.training.interruption import StopRequest
from ssd.training.learning_rate import learning_rate_at
from ssd.training.logs import LossLog
from ssd.training.routes import RouteSampler
from ssd.training.run_folder import check_out_folder, prepare_out_folder, training_card
from ssd.training.sample_order import BatchSizes, EndlessBatches
from ssd.training.summary import mean_gflops, route_costs, summarize

NUM_SAMPLES = 64


def main() -> None:
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    # Everything that can be wrong with the user's input is checked here, before anything is written.
    with exit_on_usage_error(ValueError, OSError):
        config = parse_train_config(description=__doc__)
        torch.manual_seed(config.seed)  # of the network's first weights
        checkpoint, notes = check_out_folder(config)
        dataset = open_training_data(config)
        unet = build_unet(config, number_of_classes(config, dataset))
        scheduler = build_scheduler(config)
        notes += unused_settings(config, unet)
        if config.init_from and checkpoint is None:
            load_weights(unet, config.init_from)
        accelerator = make_accelerator(config)
        config = fit_batch_size(config, checkpoint, accelerator, notes)
    if accelerator.is_main_process:
        count = dataset.provenance["count"]  # type: ignore[attr-defined]
        print(summarize(config, unet, scheduler, count))
        for note in notes:
            print(f"note: {note}")
    if not config.dry_run:
        with exit_on_usage_error():
            train(config, accelerator, unet, scheduler, dataset, checkpoint)


def open_training_data(config: TrainConfig) -> Dataset:
    """The data set that `config` names."""
    dataset = open_dataset(config.data, config.res, config.crop_preset, skip_bad_images=config.skip_bad_images)
    if isinstance(dataset, ImageStream) and config.level_batch_scale != 1:
        raise UsageError(
            f"--level_batch_scale {config.level_batch_scale} needs data with random access, and {config.data} is a "
            "stream: use 1, or prepare a copy with python -m ssd.data.prepare."
        )
    return dataset


def unused_settings(config: TrainConfig, unet: FlexiUNet2DModel) -> list[str]:
    """Notes about settings that change nothing."""
    sides = [min(size) for size in unet.stage_sizes]
    unused = [side for side in config.attention_resolutions if side not in sides]
    return [f"attention_resolutions {unused}: no stage has this side, they have {sides}."] if unused else []


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Processes and precision."""
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    precision = config.mixed_precision if config.mixed_precision != "auto" else ("bf16" if bf16 else "no")
    tracker = None if config.tracker == "none" else config.tracker
    accelerator = Accelerator(mixed_precision=precision, log_with=tracker, project_dir=config.out)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise UsageError(
            f"{accelerator.distributed_type.value} shards the network, whose routes use only a part of it: launch with "
            "configs/accelerate/multi_gpu.yaml, and save memory with --gradient_checkpointing true, --ema_on_cpu true."
        )
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) // accelerator.num_processes
        torch.set_num_threads(config.cpu_threads or max(1, cores))
    torch.set_float32_matmul_precision("high")  # TF32 where there is
    return accelerator


def number_of_classes(config: TrainConfig, dataset: Dataset) -> int | None:
    """Of the data, if the run is class-conditional."""
    if not config.class_conditional:
        return None
    classes = dataset.num_classes  # type: ignore[attr-defined]
    if not classes:
        raise UsageError(f"--class_conditional true needs data with labels, but {config.data} has none.")
    return classes


def fit_batch_size(
    config: TrainConfig, checkpoint: Path | None, accelerator: Accelerator, notes: list[str]
) -> TrainConfig:
    """After a change of the number of processes keep the global batch, if it divides."""
    if checkpoint is None:
        return config
    before, processes = read_progress(checkpoint).global_batch, accelerator.num_processes
    if before == config.batch_size * processes:
        return config
    if before % processes == 0:
        notes.append(f"batch_size is {before // processes} on {processes} processes: the global batch stays {before}.")
        return replace(config, batch_size=before // processes)
    notes.append(f"the global batch {before} becomes {config.batch_size * processes}: it does not divide evenly.")
    return config


def train(
    config: TrainConfig,
    accelerator: Accelerator,
    unet: FlexiUNet2DModel,
    scheduler: SSDScheduler,
    dataset: Dataset,
    checkpoint: Path | None,
) -> None:
    device, is_main, process, out = accelerator.device, accelerator.is_main_process, scheduler.process, Path(config.out)
    if is_main:
        prepare_out_folder(config, resuming=checkpoint is not None)
    accelerator.wait_for_everyone()

    unet.to(device)
    if config.channels_last:
        unet.to(memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    ema = EmaNetworks(unet, config.ema_decays, torch.device("cpu") if config.ema_on_cpu else device)
    adamw = torch.optim.AdamW(unet.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    optimizer = accelerator.prepare(adamw)  # with fp16 it scales the loss
    state = TrainState(unet, ema, adamw, accelerator.scaler)
    if checkpoint is not None:
        load_checkpoint(state, checkpoint)
    progress = state.progress
    progress.global_batch = config.batch_size * accelerator.num_processes
    network = announce_compiling(unet) if config.compile else unet

    routes = RouteSampler(process.resolution, config.seed, config.transition_probability, config.importance_weights)
    sizes = BatchSizes(config.batch_size, config.level_batch_scale)
    batches = load_batches(config, accelerator, dataset, routes, sizes, state)
    log = None
    if is_main:
        log = LossLog(out / "log.csv", [f"loss_{h}x{w}" for h, w in scheduler.resolutions], progress.step)
    gflops = mean_gflops(route_costs(unet, scheduler)) if is_main else 0.0
    accelerator.init_trackers("tensorboard" if config.tracker == "tensorboard" else "scale-space-diffusion")
    bar = tqdm(initial=progress.step, total=config.total_steps, desc="training", unit=" steps", disable=not is_main)
    bad_in_a_row, start, hours_before = 0, time.perf_counter(), progress.hours

    def save() -> None:
        progress.hours = hours_before + (time.perf_counter() - start) / 3600
        if is_main:
            save_checkpoint(state, out / "checkpoints", asdict(config), config.keep, config.milestone_every)
            pipeline = SSDPipeline(ema.networks[0], copy.deepcopy(scheduler))
            save_pipeline(pipeline, out, training_card(config, pipeline, progress, gflops))

    unet.train()
    with StopRequest() as stop:
        while progress.step < config.total_steps:
            waited = 0.0
            # dropout, and whatever else draws from torch's own generator
            own = torch_generator(config.seed, "step", progress.step, accelerator.process_index)
            torch.manual_seed(own.initial_seed())
            for _ in range(config.accumulate):
                route = routes.route(progress.batches)
                size = sizes.at(route.level)
                numbers = range(
                    progress.images + accelerator.process_index * size,
                    progress.images + (accelerator.process_index + 1) * size,
                )
                before_loading = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - before_loading

                x_0 = flip(batch["image"].to(device, non_blocking=True), config, numbers)
                t = routes.timesteps(route, numbers)
                noise = draw_noise(config, numbers, (x_0.shape[1], *process.size(t)), device)
                x_t, target = training_pair(process, x_0, t, noise)
                with accelerator.autocast():
                    prediction = network(
                        x_t, t.to(device), route.output_size, draw_labels(config, unet, batch, numbers, device)
                    ).sample
                losses = min_snr_loss(process, prediction, target, t, config.max_snr)
                loss = route.weight * losses.mean()
                accelerator.backward(loss / config.accumulate)
                progress.batches += 1
                progress.images += size * accelerator.num_processes
                if log is not None:
                    log.add(route.level, losses.mean(), size * accelerator.num_processes)

            average_gradients(unet.parameters())
            norm = float(accelerator.clip_grad_norm_(unet.parameters(), config.max_grad_norm or math.inf))
            for group in adamw.param_groups:
                group["lr"] = learning_rate_at(
                    progress.step,
                    config.learning_rate,
                    config.learning_rate_schedule,
                    config.warmup_steps,
                    config.total_steps,
                )
            if math.isfinite(norm) or accelerator.scaler is not None:  # the scaler of fp16 skips by itself
                optimizer.step()
                ema.update(unet)
                bad_in_a_row = 0
            else:
                bad_in_a_row += 1
            optimizer.zero_grad(set_to_none=True)  # no gradient at all, rather than zero, for parts that do not run
            progress.step += 1
            bar.update()

            last = progress.step == config.total_steps
            stopping = any_process(bool(stop), device)
            if log is not None:
                log.bad_steps += bad_in_a_row > 0
                log.add_step(norm, waited)
                if progress.step % config.log_every == 0 or last or stopping:
                    row = log.write(progress.step)
                    accelerator.log(row, step=progress.step)
                    bar.set_postfix(
                        loss=f"{row['loss']:.4f}", img_s=f"{row['images_per_second']:.0f}", size=process.size(t)[0]
                    )
            if bad_in_a_row >= config.max_bad_steps:
                raise TrainingStopped(
                    f"{bad_in_a_row} steps in a row had a loss or gradient that is not finite. The last good "
                    f"checkpoint is {newest_name(out)}: try a lower --learning_rate, or --max_grad_norm 1."
                )
            if bad_in_a_row == 0 and config.sample_every and (progress.step % config.sample_every == 0 or last):
                for name, weights in (("", ema.networks[0]), ("_raw", unet)):
                    sample_grid(config, accelerator, weights, scheduler, f"step_{progress.step:08d}{name}.png")
                unet.train()
            if bad_in_a_row == 0 and (progress.step % config.save_every == 0 or last or stopping):
                save()
            if stopping:
                break
    bar.close()
    accelerator.end_training()
    if is_main:
        how = f"Stopped by {stop.received or 'another process'}" if progress.step < config.total_steps else "Finished"
        print(f"{how} after {progress.step} steps: {out}/ holds the pipeline, samples/, log.csv and checkpoints/.")


def newest_name(out: Path) -> str:
    """The newest complete checkpoint of a run, for messages."""
    newest, _ = find_newest(out / "checkpoints")
    return str(newest) if newest else "none yet"


def load_batches(
    config: TrainConfig,
    accelerator: Accelerator,
    dataset: Dataset,
    routes: RouteSampler,
    sizes: BatchSizes,
    state: TrainState,
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of this process: `image` (B, 3, R, R) in [-1, 1], and `label` (B,) where the data have it."""
    progress, rank, processes = state.progress, accelerator.process_index, accelerator.num_processes
    loading: dict[str, Any] = {
        "num_workers": config.num_workers,
        "pin_memory": accelerator.device.type == "cuda",
        "persistent_workers": config.num_workers > 0,
    }
    if isinstance(dataset, ImageStream):
        dataset.set_position(progress.images, rank, processes, config.seed)
        return iter(DataLoader(dataset, config.batch_size, **loading))
    length = len(dataset)  # type: ignore[arg-type]
    order = EndlessBatches(length, routes, sizes, config.seed, progress.batches, progress.images, rank, processes)
    return iter(DataLoader(dataset, batch_sampler=order, **loading))


def flip(x_0: torch.Tensor, config: TrainConfig, numbers: range) -> torch.Tensor:
    """Mirror about half of the images left to right."""
    if not config.random_flip:
        return x_0
    mirrored = [numpy_generator(config.seed, "flip", i).random() < 0.5 for i in numbers]
    return torch.where(torch.tensor(mirrored, device=x_0.device).view(-1, 1, 1, 1), x_0.flip(-1), x_0)


def draw_noise(config: TrainConfig, numbers: range, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """White noise (B, C, h, w), float32 also under autocast, one generator per image."""
    return torch.stack(
        [
            torch.randn(shape, generator=torch_generator(config.seed, "noise", i, device=device), device=device)
            for i in numbers
        ]
    )


def draw_labels(
    config: TrainConfig, unet: FlexiUNet2DModel, batch: dict[str, torch.Tensor], numbers: range, device: torch.device
) -> torch.Tensor | None:
    """Labels (B,), some replaced by "no class"; None for unconditional runs."""
    if not config.class_conditional:
        return None
    dropped = [numpy_generator(config.seed, "label", i).random() < config.label_dropout for i in numbers]
    no_class = unet.config.num_class_embeds - 1
    return torch.where(torch.tensor(dropped), no_class, batch["label"]).to(device)


def announce_compiling(unet: FlexiUNet2DModel) -> Any:
    """The network, compiled; writes how long the first call of every route took."""
    compile_network(unet)
    seen = set()

    def call(x: torch.Tensor, t: torch.Tensor, output_size: tuple[int, int], labels: torch.Tensor | None) -> Any:
        route = (x.shape, output_size, torch.is_grad_enabled())
        start = time.perf_counter()
        result = unet(x, t, output_size, labels)
        if route not in seen:
            seen.add(route)
            seconds = time.perf_counter() - start
            tqdm.write(f"compiled {tuple(x.shape[-2:])} -> {output_size} in {seconds:.1f} s")
        return result

    return call


def sample_grid(
    config: TrainConfig, accelerator: Accelerator, unet: FlexiUNet2DModel, scheduler: SSDScheduler, name: str
) -> None:
    """Draw 64 images, always from the same noise, shared by the processes."""
    unet.eval()
    pipeline = SSDPipeline(unet, copy.deepcopy(scheduler))
    pipeline.set_progress_bar_config(desc="sampling", leave=False, disable=not accelerator.is_main_process)
    share = math.ceil(NUM_SAMPLES / accelerator.num_processes)
    mine = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    classes = unet.config.num_class_embeds
    (images,) = pipeline(
        share,
        num_inference_steps=max(config.sample_steps, config.levels),
        generator=[torch_generator(config.seed, "samples", i) for i in mine],
        class_labels=[i % (classes - 1) for i in mine] if classes else None,
        output_type="latent",
        return_dict=False,
    )
    images = accelerator.gather(images.to(accelerator.device))[:NUM_SAMPLES]
    if accelerator.is_main_process:
        folder = Path(config.out) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        image_grid(images).save(folder / name)


if __name__ == "__main__":
    main()
