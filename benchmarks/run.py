"""`make bench`: every benchmark, each in a process of its own; each prints a ratio against a named peer."""

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

QUICK = {
    "index": ["--size", "1000", "--window", "64", "--repeats", "2"],
    "cluster": ["--quick"],
    "features": ["--cutouts", "9", "--image-px", "56", "--repeats", "1", "--batch", "4", "--memory-cutouts", "64"],
    "train": ["--image-px", "32", "--batch", "4", "--steps", "2", "--repeats", "1"],
    "integrity": ["--size", "256", "--images", "2", "--window", "64", "--repeats", "1"],
    "match": ["--points", "2000", "--many", "20000"],
    "annotate": ["--objects", "100", "--plain-objects", "10", "--repeats", "1"],
    "datamodule": ["--roman-px", "64", "--lsst-px", "32", "--objects", "3", "--repeats", "1"],
    "detectors": ["--image-px", "64", "--batch", "1", "--objects", "3", "--steps", "1", "--repeats", "1"],
    "coco": ["--images", "2", "--objects", "10", "--masks", "30"],
    "pack": ["--size", "300", "--images", "1", "--window", "64", "--batch", "4", "--repeats", "2"],
}


def main(argv: list[str] | None = None) -> None:
    """Run all benchmarks, or small versions of them with --quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, not how fast")
    quick = parser.parse_args(argv).quick
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}", flush=True)
    for name, small in QUICK.items():
        print(f"\n# {name}", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        subprocess.run([sys.executable, script, *(small if quick else [])], check=True)


if __name__ == "__main__":
    main()
