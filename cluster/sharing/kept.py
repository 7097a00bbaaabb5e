"""What a run has kept: its checkpoints listed, read to the last byte, and exported as model folders."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from pathlib import Path

import torch

from cluster import CODE
from cluster.config.fields import Config
from cluster.errors import ConfigError
from cluster.images.live import open_loaders
from cluster.launch.run_folder import CONFIG, find_root, with_root
from cluster.prepare import prepare_training
from cluster.recipes.commandline import read_config
from cluster.sharing import onnx_folder
from cluster.sharing.card import write_card
from cluster.tracking.run_log import PROVENANCE
from cluster.training import checkpoint
from cluster.training.checkpoint import Checkpoint
from cluster.training.weights import best_checkpoint, export_model, open_tokenizer
from idc.backbone.weights import BackboneError
from idc.captioning import hub, model_folder
from idc.model.build import build
from shards.progress import Progress, busy


def list_checkpoints(run: Path) -> int:
    """A line for each checkpoint; 0."""
    config = _config(run)
    best = best_checkpoint(run, config)
    for stage in config.stages:
        folder = run / "checkpoints" / stage
        for found in checkpoint.find(folder):
            commit = found.commit
            size = sum(file.size for file in (commit.files or {}).values())
            scores = (f"{name} {value:.1f}" for name, value in (commit.validation or {}).items() if value is not None)
            kept = "kept as best" if best is not None and found.folder == best.folder else ""
            workers = f"{commit.world} worker{'' if commit.world == 1 else 's'} at ZeRO {commit.zero_stage}"
            parts = (f"{commit.step} of {config.stage(stage).steps} steps", f"{commit.samples} samples", workers,
                     f"{size / 2**20:.1f} MiB", ", ".join(scores), kept)  # fmt: skip
            print(f"{found.folder.relative_to(run)}: " + "; ".join(part for part in parts if part))
        for line in checkpoint.left_out(folder):
            print(line)
    return 0


def verify(folder: Path) -> int:
    """Reads every byte of a run's checkpoints, or of one; 1 if one is damaged."""
    one = checkpoint.committed(folder)
    if one is not None:
        found, lines = [one], []
    else:
        stages = [folder / "checkpoints" / stage for stage in _config(folder).stages]
        found = [each for stage in stages for each in checkpoint.find(stage)]
        lines = [line for stage in stages for line in checkpoint.left_out(stage)]
    damaged = False
    for each in found:
        with busy(f"reading {each.folder}", announced=False):
            why = checkpoint.lacking(each) or checkpoint.damage(each)
        damaged |= bool(why)
        print(f"{each.folder}: {why or 'whole'}")
    for line in lines:
        print(line)
    if not found and not lines:
        print(f"{folder} has no checkpoint", file=sys.stderr)
    return int(damaged or bool(lines))


def export(options: argparse.Namespace) -> int:
    """Makes the model folder that the options of `cluster.checkpoints export` ask for. ConfigError if it cannot be."""
    try:
        return _export(options)
    except (hub.HubError, model_folder.ExportError, BackboneError) as error:
        raise ConfigError(str(error)) from None


def _export(options: argparse.Namespace) -> int:
    run, stage, step, out = options.run, options.stage, options.step, options.out
    config = _config(run)
    if stage not in config.stages:
        raise ConfigError(f"--stage {stage}: {run} has {', '.join(config.stages)}")
    there = checkpoint.find(run / "checkpoints" / stage)
    chosen = _chosen(there, config.finetune.select if stage == "finetune" else "last", step)
    if chosen is None:
        steps = ", ".join(str(each.commit.step) for each in there) or "none"
        raise ConfigError(f"{run} has no checkpoint of {stage}{f' at step {step}' if step else ''}; it has {steps}")
    if out.exists():
        raise ConfigError(f"--out {out} is there already: name a new folder")
    if options.onnx:
        onnx_folder.require_onnx()
    if options.push:
        hub.check_push(options.push)
    root = find_root(config.root, CODE)
    training = prepare_training(with_root(config, root), root)
    tokenizer = open_tokenizer(training.data.shards.location, training.tokenizer)
    data = training.data
    trained_on = [(data.shards.location, data.place.features), *((one.shards, one.features) for one in training.mixed)]
    _require_fit(run, config, chosen)
    agreed = True
    making = out.with_name(f"{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        with contextlib.ExitStack() as opened:
            loaders = opened.enter_context(open_loaders(config, data.live)) if data.live else None
            with Progress("calibrating", 0, 0, "pair") as progress:
                export_model(
                    making, config, tokenizer.path, data.backbone, trained_on, chosen, loaders=loaders,
                    told=progress.reach,
                )  # fmt: skip
        write_card(making, run, training.folders())
        if options.onnx:
            found = onnx_folder.write(making, config.backbone.weights, training.data.shards, "test")
            print(found)
            agreed = found.same == found.pairs
        os.rename(making, out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    print(f"{out}: {stage} step {chosen.commit.step}")
    if options.push and agreed:
        print(hub.push(out, options.push))
    elif options.push:
        print(f"{out} was not sent: its graphs say other words", file=sys.stderr)
    return int(not agreed)


def _require_fit(run: Path, config: Config, chosen: Checkpoint) -> None:
    """ConfigError if the weights are those of another network, as an earlier version had under the same name."""
    with torch.device("meta"):
        own = build(config.model).state_dict()
    weights = checkpoint.load_weights(chosen.weights)
    if {name: each.shape for name, each in weights.items()} != {name: each.shape for name, each in own.items()}:
        raise ConfigError(
            f"{chosen.weights} does not fit the network that this version calls {config.model.architecture!r}: export "
            f"it with the version that trained it; {run / PROVENANCE} names its commit"
        )


def _chosen(there: list[Checkpoint], metric: str, step: int | None) -> Checkpoint | None:
    if step is not None:
        return next((each for each in there if each.commit.step == step), None)
    at = checkpoint.best_step({each.commit.step: (each.commit.validation or {}).get(metric) for each in there})
    return next((each for each in there if each.commit.step == at), None)


def _config(run: Path) -> Config:
    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run} is not a run folder: it has no {CONFIG}")
    return read_config(run / CONFIG)
