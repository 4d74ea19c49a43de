"""`make demo`: the recipe lotss_demo, the whole chain on a small simulated survey, as a notebook would run it."""

import os
import resource
import time
from pathlib import Path

import skyloom

STORE = Path(os.environ.get("SKYLOOM_STORE", "demo/store"))


def numbers(artifact: skyloom.Artifact) -> str:
    """What came out, in a few words."""
    counts, notes = artifact.counts, artifact.notes
    match artifact.kind:
        case "images":
            return f"{counts['mosaics']} mosaics, {counts['sources_on_images']} sources"
        case "cutouts":
            return f"{counts['kept']} of {counts['read']} windows have no blank pixel"
        case "features":
            return f"{counts['kept']} x {notes['dimensions']} by {notes['backbone']}"
        case "clusters":
            return f"levels of {notes['levels']} clusters"
        case "selection":
            return f"{counts['kept']} cutouts selected"
        case "model":
            return f"BYOL, {counts['images']} images seen, loss {notes['final']['train/loss']:.3f}"
        case _:
            return f"{len(list(artifact.path.glob('*.png')))} plots"


def main() -> None:
    """Run the recipe; print what came out of each link."""
    start = time.monotonic()

    def tell(link: object, artifact: skyloom.Artifact) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {artifact.kind:<11}{artifact.id}  {numbers(artifact)}", flush=True)

    chain = skyloom.recipe("lotss_demo", store=STORE, on_link=tell, **{"paths.runs": "demo/runs"})
    report = chain.artifacts["report"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{time.monotonic() - start:.0f} s, {memory:.1f} GiB at most. Run it again: nothing is done twice.")
    print(f"Look at  {report.file('report.html')}")
    print(f"Look up  SKYLOOM_STORE={STORE} .venv/bin/skyloom ls")


if __name__ == "__main__":
    main()
