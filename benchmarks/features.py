"""Feature extraction against the bare network: time on top of the forward pass, and memory at N and 4 N cutouts."""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

import skyloom
from skyloom.backbone import build_backbone
from skyloom.run.notebook import compose
from skyloom.transform import Preprocess


def main(argv: list[str] | None = None) -> None:
    """Print images/s of product=features over those of the bare forward pass, from alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "dinov2_s"], help="files of conf/backbone")
    parser.add_argument("--image-px", type=int, default=224, help="side of the network's input")
    parser.add_argument("--cutouts", type=int, default=384, help="images per run")
    parser.add_argument("--batch", type=int, default=32, help="images per forward pass")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; medians are printed")
    parser.add_argument(
        "--memory-cutouts", type=int, default=1024, help="N of the memory at N and 4 N; 0: not measured"
    )
    parser.add_argument(
        "--peak-of", nargs=2, metavar=("CUTOUTS", "STORE"), help="(for itself) print this run's peak RSS"
    )
    options = parser.parse_args(argv)
    if options.peak_of:
        peak_of(*options.peak_of)
        return
    side = int(np.ceil(np.sqrt(options.cutouts)))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        survey = skyloom.curate(
            "simulate", survey="lotss", mosaics=1, size_px=128 + 64 * (side - 1), blank_fraction=0.0, store=store
        )
        cutouts = skyloom.curate("cutouts", survey="lotss", images=survey, window_px=128, overlap=0.5, store=store)
        for name in options.backbones:
            compare(name, cutouts, options, store)
        preprocessing(options)
    if options.memory_cutouts:
        memory(options.memory_cutouts)


def memory(number: int) -> None:
    """Print the peak memory of extracting N and 4 N cutouts, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store, peaks = Path(folder) / "store", []
        mosaic = skyloom.curate("simulate", survey="lotss", mosaics=1, size_px=1056, blank_fraction=0.0, store=store)
        for count in (number, 4 * number):
            stride = float(1024 / (np.ceil(np.sqrt(count)) - 1))
            keys = {"window_px": 32, "overlap": max(0.0, 1 - stride / 32)}
            cutouts = skyloom.curate("cutouts", survey="lotss", images=mosaic, store=store, **keys)
            words = [sys.executable, __file__, "--peak-of", cutouts.id, str(store)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            peaks.append((cutouts.counts["kept"], int(done.stdout.split()[-1])))
    (few, low), (many, high) = peaks
    print(
        f"features, peak RSS: {low} MB at {few} cutouts, {high} MB at {many}: {high / low:.3f} times (aim: 1.00), "
        f"{1e3 * (high - low) / (many - few):.2f} kB per cutout",
        flush=True,
    )


def peak_of(cutouts: str, store: str) -> None:
    """Extract with a small network in pieces, and print the peak memory of this process in MB."""
    keys = {"backbone": "resnet18", "backbone.image_size_px": 32, "batch_size": 64, "shard_rows": 256, "device": "cpu"}
    skyloom.extract("features", cutouts=cutouts, store=store, **keys)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def preprocessing(options: argparse.Namespace) -> None:
    """Print what preparing a batch costs beside the forward pass of ResNet-18."""
    network = build_backbone("resnet18", in_chans=1, image_size_px=options.image_px).eval()
    images = torch.rand(options.batch, 1, options.image_px, options.image_px)
    raw = 1e-4 * torch.randn(options.batch, 1, 128, 128)

    def seconds(call: Callable[[], object]) -> float:
        call()
        times = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    with torch.inference_mode():
        bare = seconds(lambda: network(images))
        for name in ("radio", "zscale", "sigma", "multistretch"):
            chosen = compose("extract", ["product=features", f"transform={name}"]).transform.preprocess
            keys = {**OmegaConf.to_container(chosen), "image_size_px": options.image_px}
            keys["channels"] = keys["channels"] if isinstance(keys["channels"], list) else 1
            prepare = Preprocess.from_options(keys)
            share = 100 * seconds(lambda prepare=prepare: prepare(raw)) / bare
            print(
                f"preprocessing, {name}: {share:.2f} % of a ResNet-18 at {options.image_px} px (aim: 2 %)", flush=True
            )


def compare(name: str, cutouts: skyloom.Artifact, options: argparse.Namespace, store: Path) -> float:
    """Time the whole command in this process, from raw Jy/beam on disk to features.h5, against the network alone."""
    number = cutouts.counts["kept"]
    keys = {"backbone": name, "backbone.image_size_px": options.image_px, "batch_size": options.batch}
    model = compose("extract", ["product=features", f"backbone={name}"]).backbone.model
    network = build_backbone(model, in_chans=1, image_size_px=options.image_px).eval()
    tensors = torch.rand(number, 1, options.image_px, options.image_px)

    def bare() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in tensors.split(options.batch):
                network(batch)
        return number / (time.perf_counter() - start)

    def whole(run: int) -> float:
        start = time.perf_counter()
        skyloom.extract("features", cutouts=cutouts, seed=run, store=store, **keys)
        return number / (time.perf_counter() - start)

    bare()  # warm up
    whole(options.repeats)
    pairs = [(whole(run), bare()) for run in range(options.repeats)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"features, {name} at {options.image_px} px, {number} cutouts, batch {options.batch}, "
        f"{torch.get_num_threads()} threads: {statistics.median(a for a, _ in pairs):.1f} images/s, bare forward pass "
        f"{statistics.median(b for _, b in pairs):.1f} images/s: {100 * ratio:.1f} % (aim: 95 %)",
        flush=True,
    )
    return ratio


if __name__ == "__main__":
    main()
