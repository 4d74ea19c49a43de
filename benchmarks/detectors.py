"""A training step of cascade_mask_rcnn against detectron2's model of the same sizes: seconds and peak memory."""

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from skyloom.backbone import build_backbone
from skyloom.detector.base import Detector
from skyloom.detector.build import build_detector

CHANNELS, CLASSES = 6, 2
CONF = Path(__file__).resolve().parents[1] / "conf" / "detector"


def main(argv: list[str] | None = None) -> None:
    """Print seconds per step and peak memory of both, each in processes of its own, run in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-px", type=int, default=256, help="side of the images")
    parser.add_argument("--batch", type=int, default=2, help="images per step")
    parser.add_argument("--objects", type=int, default=20, help="objects per image")
    parser.add_argument("--steps", type=int, default=3, help="steps per run that are timed; one more goes before them")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each; medians are printed")
    parser.add_argument("--one", choices=["cascade_mask_rcnn", "detectron2"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        steps(options)
        return
    if importlib.util.find_spec("detectron2") is None:
        print("detectors: detectron2 is not installed, nothing to compare with (docs/detectors/detectron2.md)")
        return
    own = {"image-px": options.image_px, "batch": options.batch, "objects": options.objects, "steps": options.steps}
    passed = [f"--{name}={value}" for name, value in own.items()]
    found: dict[str, list[list[float]]] = {"cascade_mask_rcnn": [], "detectron2": []}
    for _ in range(options.repeats):
        for name, runs in found.items():
            words = [sys.executable, __file__, f"--one={name}", *passed]
            out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            runs.append([float(word) for word in out.split()[-3:]])
    ours, theirs = ([statistics.median(values) for values in zip(*runs, strict=True)] for runs in found.values())
    machine = "GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(
        f"detectors, training step of Swin-T at {options.image_px} px, batch {options.batch}, {options.objects} "
        f"objects each, {machine}: cascade_mask_rcnn "
        f"{ours[0]:.2f} s ({ours[1]:.2f} s of CPU), peak {ours[2]:.0f} MB; detectron2 {theirs[0]:.2f} s "
        f"({theirs[1]:.2f} s of CPU), peak {theirs[2]:.0f} MB: {theirs[0] / ours[0]:.2f} times as fast, "
        f"{theirs[1] / ours[1]:.2f} by CPU time (aim: at least 1), with {ours[2] / theirs[2]:.2f} of the memory",
        flush=True,
    )


def steps(options: argparse.Namespace) -> None:
    """Print medians over the steps of seconds and of seconds of CPU, and the peak of the memory in MB."""
    detector = build(options.one)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-5)
    images, targets = scene(options)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        detector, images = detector.cuda(), images.cuda()
        targets = [{key: value.cuda() for key, value in target.items()} for target in targets]
    seconds, cpu = [], []
    for _ in range(options.steps + 1):
        start, started = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(detector.losses(images, targets).values())).sum().backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - started)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    peak_mb = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_mb
    print(statistics.median(seconds[1:]), statistics.median(cpu[1:]), peak_mb)


def build(name: str) -> Detector:
    """Build a detector as ``conf/detector`` describes it, on a Swin-T without drop-out."""
    torch.manual_seed(0)
    settings: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    settings["pyramid"]["drop_path"] = 0.0
    ours = name == "cascade_mask_rcnn"
    network = build_backbone("swin_tiny_patch4_window7_224", in_chans=CHANNELS) if ours else None
    return build_detector(settings, backbone=network, in_chans=CHANNELS, classes=CLASSES, seed=0)


def scene(options: argparse.Namespace) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Noise with boxes of 6 to 30 px, each filled by its mask."""
    stream = torch.Generator().manual_seed(0)
    side, targets = options.image_px, []
    for _ in range(options.batch):
        corner = torch.rand(options.objects, 2, generator=stream) * (side - 31)
        boxes = torch.cat([corner, corner + 6 + 24 * torch.rand(options.objects, 2, generator=stream)], dim=1).round()
        masks = torch.zeros(options.objects, side, side, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        labels = torch.randint(CLASSES, (options.objects,), generator=stream)
        centroids = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
        targets.append({"boxes": boxes, "labels": labels, "masks": masks, "centroids": centroids})
    return torch.randn(options.batch, CHANNELS, side, side, generator=stream), targets


if __name__ == "__main__":
    main()
