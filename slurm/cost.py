"""What a survey costs: time, memory and disk of the steps, from the rates of docs/measurements.md and nothing else.

`python slurm/cost.py` prints the tables of slurm/README.md. Each rate is found in that page by the words around it, so
that a new measurement changes the tables; a test compares the two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEASUREMENTS = Path(__file__).resolve().parents[1] / "docs" / "measurements.md"
CORES = 2  # of the machine on which all rates were measured
JOBS, JOB_CORES = 64, 4  # parallel_jobs and cpus of conf/executor/slurm.yaml

LOTSS = 4_200_000  # cutouts of 256 px at overlap 0.5 in the 841 mosaics of LoTSS DR2
ROMAN = 157_500  # 700 Roman tiles with 225 cutouts each
EPOCH = 109_782  # images of the part train
DEMO_IMAGES = 192  # that recipe=detect_demo trains on in an epoch, with a look at 22 others
STEP_IMAGES = 2  # of the step that benchmarks/detectors.py times
TRUTH = 139  # true objects to i = 29 in a Roman + Rubin cutout: 4,356,511 in 31,367 cutouts of DeepDISC's test set


@dataclass(frozen=True)
class Rate:
    """A measured figure: the section of the page, and the words around its numbers."""

    section: str
    words: str

    def texts(self) -> list[str]:
        """What stands in the parentheses of ``words``, as the page has it."""
        page = " ".join(MEASUREMENTS.read_text().split(f"## {self.section}\n", 1)[1].split("\n## ", 1)[0].split())
        found = re.search(self.words, page)
        if found is None:
            raise SystemExit(f"{MEASUREMENTS}: no '{self.words}' in the section {self.section}; has the line changed?")
        return [text.removesuffix(",") for text in found.groups()]

    def numbers(self) -> list[float]:
        """The same as numbers."""
        return [float(text.replace(",", "")) for text in self.texts()]


INDEX = Rate("The cutout index", r"\(([\d,]+)/s against")
INDEX_MB = Rate("The cutout index", r"memory \| ([\d,]+) MB peak")
TABLES = Rate(
    "Index tables",
    r"([\d,]+) synthetic windows .*`step=deduplicate` ([\d.]+) s and ([\d.]+) GB, `step=split` ([\d.]+) s and ([\d.]+)",
)
RESNET = Rate("Feature extraction", r"ResNet-18 \| ([\d.]+) images/s")
DINO = Rate("Feature extraction", r"DINOv2 ViT-S/14 \| ([\d.]+) images/s")
FEATURES_MB = Rate("Feature extraction", r"cutouts: ([\d,]+) MB at")
BYOL = Rate("Self-supervised training", r"on disk \(([\d.]+) images/s\)")
ANNOTATE = Rate("Annotations", r"i = 29 \| ([\d,]+) objects/s")
INTEGRITY = Rate("Integrity and statistics", r"([\d,]+) cutouts of 3 x 512 px")
INTEGRITY_S = Rate("Integrity and statistics", r"cold \| [\d.]+ s \| ([\d.]+) s")
SAMPLES = Rate("Joint samples", r"skyloom, map kept \| ([\d.]+)")
CLUSTER = Rate("Clustering", r"\| ([\d.]+) GB resident, ([\d.]+) s;")
FINE = Rate("Clustering", r"into 60,000, .*? \| ([\d,]+) s of CPU time, ([\d.]+) GB resident")
DEMO = Rate("Detection", r"([\d.]+) s of it are the training \((\d+) epochs\)")
DETECTOR = Rate("Detection", r"ours ([\d.]+) s and ([\d,]+) MB")
SEARCH = Rate("Detection", r"inference ([\d.]+) images/s")
FRIENDS = Rate("Matching", r"of 20 million points \| ([\d.]+) s, peak ([\d.]+) GB")


@dataclass(frozen=True)
class Line:
    """A line of a table: core hours, and whether the work can be divided into jobs."""

    step: str
    core_hours: float
    memory_gb: float | None
    disk_gb: float | None
    source: Rate
    divides: bool = True
    cores: int = CORES


def lotss() -> list[Line]:
    """LoTSS DR2: features of all cutouts, BYOL on 200,000 of them."""
    windows, dedup_s, dedup_gb, split_s, split_gb = TABLES.numbers()
    (clustered_gb, clustered_s), (fine_s, fine_gb) = CLUSTER.numbers(), FINE.numbers()
    more, memory = LOTSS / windows, FEATURES_MB.numbers()[0] / 1e3
    return [
        Line("`step=cutouts`", _hours(LOTSS / INDEX.numbers()[0]), INDEX_MB.numbers()[0] / 1e3, None, INDEX),
        Line("`step=deduplicate`", _hours(dedup_s * more, 1), dedup_gb * more, None, TABLES, False, 1),
        Line("`step=split`", _hours(split_s * more, 1), split_gb * more, None, TABLES, False, 1),
        Line("`product=features`, ResNet-18", _hours(LOTSS / RESNET.numbers()[0]), memory, LOTSS * 512 * 4e-9, RESNET),
        Line("`product=features`, DINOv2 ViT-S", _hours(LOTSS / DINO.numbers()[0]), memory, LOTSS * 384 * 4e-9, DINO),
        Line("`step=cluster` as measured: a million rows of 384, 2000 and 100 clusters", _hours(clustered_s, 1),
             clustered_gb, None, CLUSTER, False, 1),
        Line("`step=cluster` as measured: 200,000 rows of 384, 60,000, 4,000 and 300 clusters", _hours(fine_s, 1),
             fine_gb, None, FINE, False, 1),
        Line("`task=byol`, ResNet-18 at 128 px, an epoch of 200,000", _hours(200_000 / BYOL.numbers()[0]), None, None,
             BYOL, divides=False),
    ]  # fmt: skip


def roman() -> list[Line]:
    """Roman + LSST: three bands of 512 px and six of 148 px."""
    seconds, memory = FRIENDS.numbers()
    cutouts = INTEGRITY.numbers()[0]
    objects = ROMAN * TRUTH
    (demo_s, demo_epochs), (step_s, step_mb) = DEMO.numbers(), DETECTOR.numbers()
    return [
        Line("`step=annotate`", _hours(objects / ANNOTATE.numbers()[0], 1), None, None, ANNOTATE),
        Line("`step=integrity` and `step=stats`, Roman", _hours(ROMAN / cutouts * INTEGRITY_S.numbers()[0]), None, None,
             INTEGRITY_S),
        Line(f"reading {EPOCH:,} samples, an epoch", _hours(EPOCH / SAMPLES.numbers()[0], 1), None, None, SAMPLES),
        Line("`task=detect`, an epoch of those at 6 x 75 px, Mask R-CNN on ResNet-10t",
             _hours(EPOCH * demo_s / (demo_epochs * DEMO_IMAGES)), None, None, DEMO, False),
        Line("`task=detect`, an epoch of those at 6 x 256 px, Cascade Mask R-CNN on Swin-T",
             _hours(EPOCH * step_s / STEP_IMAGES), step_mb / 1e3, None, DETECTOR, False),
        Line("`product=candidates`, the same network at 6 x 148 px, 100 candidates per image",
             _hours(ROMAN / SEARCH.numbers()[0]), None, None, SEARCH),
        Line("friends of friends over all true objects", _hours(objects / 20e6 * seconds, 1), objects / 20e6 * memory,
             None, FRIENDS, False, 1),
        Line("`step=pack`, uncompressed", float("nan"), None, ROMAN * (3 * 512**2 + 6 * 148**2) * 4e-9, INTEGRITY),
    ]  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """A table in Markdown."""
    rows = ["| work | core hours | on 2 cores | 64 jobs of 4 cores | memory of a process | disk | rate from |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for line in lines:
        known = line.core_hours == line.core_hours
        hours = line.core_hours / (JOBS * JOB_CORES)
        many = "one job" if not line.divides else "< 1 min" if hours < 1 / 60 else _clock(hours)
        cells = [
            line.step,
            f"{line.core_hours:,.2g}"
            if known and line.core_hours < 100
            else f"{line.core_hours:,.0f}"
            if known
            else "-",
            _clock(line.core_hours / line.cores) if known else "-",
            many if known else "-",
            "-" if line.memory_gb is None else f"{line.memory_gb:.1f} GB",
            "-" if line.disk_gb is None else f"{line.disk_gb:,.1f} GB",
            f"{line.source.section}: {', '.join(line.source.texts())}" if known else "sizes alone",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _hours(seconds: float, cores: int = CORES) -> float:
    return seconds * cores / 3600


def _clock(hours: float) -> str:
    if hours * 3600 < 100:
        return f"{max(1, round(hours * 3600))} s"
    if hours * 60 < 100:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"


if __name__ == "__main__":
    print(
        f"{LOTSS:,} cutouts of LoTSS DR2\n\n{table(lotss())}\n\n{ROMAN:,} cutouts of Roman + LSST\n\n{table(roman())}"
    )
