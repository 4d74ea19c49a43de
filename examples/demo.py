"""`make demo`: the whole chain on a small simulated survey, as a notebook would run it."""

import os
import resource
import time
from pathlib import Path

import skyloom

STORE = Path(os.environ.get("SKYLOOM_STORE", "demo/store"))
FOLDERS = {"store": STORE, "paths.runs": "demo/runs"}
WINDOW_PX = 128  # 3.2' at 1.5" per pixel
IMAGE_PX = 112  # what the networks see: a multiple of DINOv2's 14 px patch, small enough for two CPU cores
SELECTED = 192  # cutouts that training gets


def main() -> None:
    """Simulate, cut, extract, cluster, select, train, report; print what came out."""
    start = time.monotonic()
    steps = []

    def done(what: str, artifact: skyloom.Artifact, numbers: str) -> skyloom.Artifact:
        steps.append((what, artifact.id, numbers))
        print(f"{time.monotonic() - start:6.1f} s  {what:<12}{artifact.id}  {numbers}", flush=True)
        return artifact

    survey = skyloom.curate("simulate", survey="lotss", mosaics=4, size_px=1000, seed=1, **FOLDERS)
    done("simulate", survey, f"{survey.counts['mosaics']} mosaics, {survey.counts['sources_on_images']} sources")

    cutouts = skyloom.curate("cutouts", survey="lotss", images=survey, window_px=WINDOW_PX, **FOLDERS)
    done("cutouts", cutouts, f"{cutouts.counts['kept']} of {cutouts.counts['read']} windows have no blank pixel")

    for backbone in ("dinov2_s", "resnet18"):
        features = skyloom.extract(
            "features", cutouts=cutouts, backbone=backbone, **{"backbone.image_size_px": IMAGE_PX}, **FOLDERS
        )
        done("features", features, f"{features.counts['kept']} x {features.notes['dimensions']} by {backbone}")

    clusters = skyloom.curate(
        "cluster",
        features=features,
        levels=[{"clusters": 40, "sample_size": 8, "resamples": 3}, {"clusters": 8, "sample_size": 3, "resamples": 3}],
        **FOLDERS,
    )
    done("cluster", clusters, f"levels of {clusters.notes['levels']} clusters")

    selection = skyloom.curate("subsample", clusters=clusters, target_size=SELECTED, **FOLDERS)
    done("subsample", selection, f"{selection.counts['kept']} cutouts selected")

    model = skyloom.train(
        "byol",
        cutouts=cutouts,
        selection=selection,
        backbone="resnet18",
        **{"backbone.image_size_px": IMAGE_PX, "trainer.max_epochs": 3, "datamodule.batch_size": 48},
        **FOLDERS,
    )
    done("train", model, f"BYOL, {model.counts['images']} images seen, loss {model.notes['final']['train/loss']:.3f}")

    report = skyloom.analyze("selection", selection=selection, model=model, **FOLDERS)
    done("report", report, f"{len(list(report.path.glob('*.png')))} plots")

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{time.monotonic() - start:.0f} s, {memory:.1f} GiB at most. Run it again: nothing is done twice.")
    print(f"Look at  {report.file('report.html')}")
    print(f"Look up  SKYLOOM_STORE={STORE} .venv/bin/skyloom ls")


if __name__ == "__main__":
    main()
