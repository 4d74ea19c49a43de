"""A training step of cascade_mask_rcnn against detectron2's model of the same sizes: seconds and peak memory.

    python benchmarks/detectors.py [--image-px 256] [--batch 2] [--objects 20] [--steps 3]

The rates of ours alone, in training and in inference, without detectron2:

    python benchmarks/detectors.py --rates --image-px 148 --channels 6 --batch 8 --candidates 200
"""

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from skyloom.backbone import build_backbone
from skyloom.detector.base import Detector
from skyloom.detector.build import build_detector

CLASSES = 2
SWIN_T = "swin_tiny_patch4_window7_224"
CONF = Path(__file__).resolve().parents[1] / "conf" / "detector"


def main(argv: list[str] | None = None) -> None:
    """Print seconds per step and peak memory of both, each in processes of its own, run in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-px", type=int, default=256, help="side of the images")
    parser.add_argument("--channels", type=int, default=6, help="of the images")
    parser.add_argument("--batch", type=int, default=2, help="images per step")
    parser.add_argument("--objects", type=int, default=20, help="objects per image")
    parser.add_argument("--steps", type=int, default=3, help="steps per run that are timed; one more goes before them")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each; medians are printed")
    parser.add_argument("--rates", action="store_true", help="only images/s of cascade_mask_rcnn, trained and searched")
    parser.add_argument("--candidates", type=int, default=200, help="objects found per image, for --rates")
    parser.add_argument("--backbone", default=SWIN_T, help="timm name, for --rates")
    parser.add_argument("--one", choices=["cascade_mask_rcnn", "detectron2"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        steps(options)
        return
    if options.rates:
        rates(options)
        return
    if importlib.util.find_spec("detectron2") is None:
        print("detectors: detectron2 is not installed, nothing to compare with (docs/detectors/detectron2.md)")
        return
    own = {
        "image-px": options.image_px,
        "channels": options.channels,
        "batch": options.batch,
        "objects": options.objects,
    }
    own |= {"steps": options.steps}
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


def rates(options: argparse.Namespace) -> None:
    """Print how many images per second a training step and a forward pass of ours take, and the peak of the memory."""
    machine = "GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    detector, images, targets = start("cascade_mask_rcnn", options)
    trained, _ = train_steps(detector, images, targets, options.steps)
    training_mb = peak_mb()
    detector.eval()
    with torch.inference_mode():
        searched, _ = timed(lambda: detector.raw(list(images)), options.steps)
    print(
        f"detectors, cascade_mask_rcnn on {options.backbone}, {options.channels} channels of {options.image_px} px, "
        f"batch {options.batch}, {options.objects} objects each, {machine}: training {options.batch / trained:.3g} "
        f"images/s, peak {training_mb:.0f} MB; inference {options.batch / searched:.3g} images/s with "
        f"{options.candidates} candidates per image, whose masks and centroids take most of it",
        flush=True,
    )


def steps(options: argparse.Namespace) -> None:
    """Print medians over the steps of seconds and of seconds of CPU, and the peak of the memory in MB."""
    print(*train_steps(*start(options.one, options), options.steps), peak_mb())


def start(name: str, options: argparse.Namespace) -> tuple[Detector, torch.Tensor, list[dict[str, torch.Tensor]]]:
    """A detector, images and their objects, on the GPU where there is one."""
    candidates = options.candidates if options.rates else None
    detector = build(name, options.channels, options.backbone, candidates)
    images, targets = scene(options)
    if torch.cuda.is_available():
        detector, images = detector.cuda(), images.cuda()
        targets = [{key: value.cuda() for key, value in target.items()} for target in targets]
    return detector, images, targets


def train_steps(
    detector: Detector, images: torch.Tensor, targets: list[dict[str, torch.Tensor]], number: int
) -> tuple[float, float]:
    """Medians of seconds and of seconds of CPU of training steps."""
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(detector.losses(images, targets).values())).sum().backward()
        optimizer.step()

    return timed(step, number)


def timed(work: Callable[[], object], number: int) -> tuple[float, float]:
    """Medians of seconds and of seconds of CPU of some calls, after one that is not counted."""
    seconds, cpu = [], []
    for _ in range(number + 1):
        begun, used = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    return statistics.median(seconds[1:]), statistics.median(cpu[1:])


def peak_mb() -> float:
    """The peak of the memory, of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def build(name: str, channels: int, backbone: str, candidates: int | None) -> Detector:
    """Build a detector as ``conf/detector`` describes it, without drop-out; detectron2's brings its own Swin-T."""
    torch.manual_seed(0)
    settings: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    settings["pyramid"]["drop_path"] = 0.0
    if candidates is not None:  # random weights leave as many as they may
        settings["top_k"] = candidates
    network = build_backbone(backbone, in_chans=channels) if name == "cascade_mask_rcnn" else None
    return build_detector(settings, backbone=network, in_chans=channels, classes=CLASSES, seed=0)


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
    return torch.randn(options.batch, options.channels, side, side, generator=stream), targets


if __name__ == "__main__":
    main()
