"""Feature extraction against the bare network: what reading, preparing and writing cost on top of the forward pass."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import skyloom
from skyloom.backbone import build_backbone
from skyloom.run.notebook import compose


def main(argv: list[str] | None = None) -> None:
    """Print images/s of product=features over those of the bare forward pass, from alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "dinov2_s"], help="files of conf/backbone")
    parser.add_argument("--image-px", type=int, default=224, help="side of the network's input")
    parser.add_argument("--cutouts", type=int, default=384, help="images per run")
    parser.add_argument("--batch", type=int, default=32, help="images per forward pass")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; medians are printed")
    options = parser.parse_args(argv)
    side = int(np.ceil(np.sqrt(options.cutouts)))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        survey = skyloom.curate(
            "simulate", survey="lotss", mosaics=1, size_px=128 + 64 * (side - 1), blank_fraction=0.0, store=store
        )
        cutouts = skyloom.curate("cutouts", survey="lotss", images=survey, window_px=128, overlap=0.5, store=store)
        for name in options.backbones:
            compare(name, cutouts, options, store)


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
