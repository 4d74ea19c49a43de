"""Hierarchical k-means against plain torch: speed, inertia, balance; and the memory of a large clustering.

    python benchmarks/cluster.py [--points 50000] [--seeds 5] [--memory-rows 1000000] [--quick]

The rate of step=cluster alone, for as many clusters as recipe=lotss_dr2 makes:

    python benchmarks/cluster.py --no-speed --seeds 0 --memory-rows 200000 --clusters 60000 4000 300 --samples 25 8 7

The problem is a mixture of 200 Gaussian classes with Zipf weights (exponent 1) in 64 dimensions; means are drawn with a
standard deviation of 3 per dimension around classes of standard deviation 1. Levels of 1000 and 100 clusters, sample
sizes 10 and 3, 1 + 10 k-means per level. The peer is the published algorithm written plainly in torch: greedy
k-means++, always 50 Lloyd iterations, one k-means at a time, the same threads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

from skyloom.cluster import (
    Level,
    LevelResult,
    assign,
    flat_selection,
    hierarchical_kmeans,
    random_selection,
    sample_hierarchy,
    top_level_selection,
)
from skyloom.cluster.members import group
from skyloom.metric.balance import occupancy_entropy
from skyloom.store import Build, builds

CLASSES = 200
DIM = 64


def mixture(points: int, seed: int = 0, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 64) float32 and their classes (N,)."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, CLASSES + 1)
    labels = rng.choice(CLASSES, size=points, p=weights / weights.sum())
    means = rng.normal(0, spread, (CLASSES, DIM))
    return (means[labels] + rng.normal(size=(points, DIM))).astype(np.float32), labels


def peer(x: np.ndarray, levels: list[Level], seed: int) -> list:
    """Cluster with plain torch, as published: per level (centroids, assignment)."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def distances(a, b):
        return (a.square().sum(1)[:, None] - 2 * a @ b.T + b.square().sum(1)[None]).clamp_(min=0)

    def assigned(points, centroids):
        parts = [distances(part, centroids).min(dim=1) for part in points.split(8192)]
        return torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])

    def plain_kmeans(points, clusters):
        trials = 2 + int(np.log(clusters))
        first = torch.randint(len(points), (1,), generator=generator)
        centroids = [points[first[0]]]
        closest = distances(points, points[first])[:, 0]
        for _ in range(1, clusters):
            total = closest.double().cumsum(0)
            draw = torch.rand(trials, generator=generator, dtype=torch.float64) * total[-1]
            candidates = torch.searchsorted(total, draw).clamp_(max=len(points) - 1)
            capped = torch.minimum(distances(points, points[candidates]), closest[:, None])
            best = int(capped.sum(0).argmin())
            closest = capped[:, best]
            centroids.append(points[candidates[best]])
        centroids = torch.stack(centroids)
        for _ in range(50):
            index, _ = assigned(points, centroids)
            sums = torch.zeros_like(centroids).index_add_(0, index, points)
            counts = torch.bincount(index, minlength=clusters)
            centroids = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centroids)
        return centroids

    found, points = [], torch.from_numpy(x)
    for level in levels:
        subset = points
        for step in range(level.resamples + 1):
            centroids = plain_kmeans(subset, level.clusters)
            index, distance = assigned(points, centroids)
            if step < level.resamples:
                picked = []
                for cluster in range(level.clusters):
                    members = torch.nonzero(index == cluster)[:, 0]
                    picked.append(members[distance[members].argsort()[: level.sample_size]])
                subset = points[torch.cat(picked)]
        found.append((centroids.numpy(), index.numpy()))
        points = centroids
    return found


def inertia(x: np.ndarray, centroids: np.ndarray) -> float:
    return float(np.square(assign(x, centroids)[1], dtype=np.float64).sum())


def speed(x: np.ndarray, levels: list[Level], threads: int) -> None:
    """Print seconds of both and their inertia, per level on the items of the own level below."""
    start = time.perf_counter()
    ours = hierarchical_kmeans(x, levels, seed=0)
    seconds = time.perf_counter() - start
    print(f"skyloom: {seconds:.1f} s, inertia of level 1 {inertia(x, ours[0].centroids):.5g}", flush=True)
    import torch

    torch.set_num_threads(threads)
    start = time.perf_counter()
    theirs = peer(x, levels, 0)
    plain = time.perf_counter() - start
    print(f"plain torch: {plain:.1f} s, inertia of level 1 {inertia(x, theirs[0][0]):.5g}")
    first = inertia(x, ours[0].centroids) / inertia(x, theirs[0][0])
    top = inertia(ours[0].centroids, ours[1].centroids) / inertia(theirs[0][0], theirs[1][0])
    print(f"ratio plain torch / skyloom: {plain / seconds:.1f} (aim: 10)")
    print(f"ratio of the inertia, skyloom / plain torch: {first:.4f} at level 1, {top:.4f} at the top", flush=True)


def as_levels(x: np.ndarray, found: list) -> list[LevelResult]:
    """What the peer found, in our form."""
    results: list[LevelResult] = []
    for centroids, _ in found:
        index, distance = assign(results[-1].centroids if results else x, centroids)
        indptr, indices = group(index, len(centroids), distance)
        results.append(LevelResult(centroids, index, indptr, indices, distance[indices]))
    return results


def entropies(points: int, levels: list[Level], seeds: int, spread: float, with_peer: bool) -> None:
    """Print the entropy of the classes in a 10 % selection, mean and spread over mixtures and seeds."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        x, labels = mixture(points, seed, spread)
        result = hierarchical_kmeans(x, levels, seed=seed, upper_restarts=5)
        cosine = hierarchical_kmeans(x, levels, seed=seed, upper_restarts=5, metric="cosine")
        rng, target = np.random.default_rng(seed), points // 10
        chosen = {
            "hierarchical, metric=cosine": sample_hierarchy(cosine, target, rng=rng),
            "hierarchical": sample_hierarchy(result, target, rng=rng),
            "flat": flat_selection(result[0].assignment, target, rng),
            "top_level": top_level_selection(result, target, rng),
            "random": random_selection(points, target, rng),
        }
        if with_peer:
            chosen["plain torch, hierarchical"] = sample_hierarchy(as_levels(x, peer(x, levels, seed)), target, rng=rng)
        for name, rows in chosen.items():
            found.setdefault(name, []).append(occupancy_entropy(np.bincount(labels[rows], minlength=CLASSES)))
    print(f"class entropy of a 10 % selection [nats], {seeds} mixtures with means of standard deviation {spread:g}; "
          f"uniform is {np.log(CLASSES):.2f} (aim: 5.05)")  # fmt: skip
    for name, values in found.items():
        print(f"  {name:<28}{np.mean(values):.3f} +- {np.std(values):.3f}, {min(values):.3f} to {max(values):.3f}")
    sys.stdout.flush()


@builds("features", version=1)
def noise_features(build: Build, *, rows: int, dimensions: int) -> None:
    """Clustered noise, written by blocks."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(500, dimensions)).astype(np.float32)
    with build.write("features.h5") as path, h5py.File(path, "w") as file:
        data = file.create_dataset("features", (rows, dimensions), "f4", chunks=(min(rows, 1024), dimensions))
        for start in range(0, rows, 16384):
            count = min(16384, rows - start)
            block = rng.standard_normal((count, dimensions), dtype=np.float32)
            data[start : start + count] = block + means[rng.integers(500, size=count)]
        file["cutout_id"] = np.arange(rows)


def memory(rows: int, dimensions: int, levels: list[dict[str, int]], iterations: int) -> None:
    """Run step=cluster in a process of its own with the default budget; print its time and peak resident memory."""
    with tempfile.TemporaryDirectory() as folder:
        features = noise_features(rows=rows, dimensions=dimensions, store=folder)
        child = (
            "import json,resource,sys,time,skyloom\n"
            "store,features,levels,iterations=sys.argv[1:]\n"
            "start=time.perf_counter()\n"
            "options=dict(levels=json.loads(levels),iterations=int(iterations),store=store)\n"
            "skyloom.curate('cluster',features=features,**options)\n"
            "peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "print(time.perf_counter()-start, peak, 'torch' in sys.modules)\n"
        )
        words = [sys.executable, "-c", child, folder, features.id, json.dumps(levels), str(iterations)]
        done = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    peak = int(done[-2]) / (1e9 if sys.platform == "darwin" else 1e9 / 1024)
    size = 4e-9 * rows * dimensions
    shape = ", ".join(f"{level['clusters']} clusters" for level in levels)
    print(f"step=cluster of {rows} x {dimensions} ({size:.2f} GB on disk), {shape}, {iterations} iterations at most, "
          f"{levels[0]['resamples']} resampling(s) per level: {float(done[-3]):.0f} s, peak RSS {peak:.2f} GB "
          f"(aim: 1.5), torch imported: {done[-1]}", flush=True)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50_000, help="points of the mixture")
    parser.add_argument("--seeds", type=int, default=5, help="mixtures of the table of entropies; 0 leaves it out")
    parser.add_argument("--spreads", type=float, nargs="+", default=[3.0, 1.5],
                        help="standard deviations of the classes' means; the peer is in the first table")  # fmt: skip
    parser.add_argument("--memory-rows", type=int, default=1_000_000, help="rows of the large clustering; 0: none")
    parser.add_argument("--dimensions", type=int, default=384, help="of each of these rows")
    parser.add_argument("--clusters", type=int, nargs="+", default=[2000, 100],
                        help="of the levels of the large clustering; recipe=lotss_dr2 has 60000 4000 300")  # fmt: skip
    parser.add_argument("--samples", type=int, nargs="+", default=[50, 10],
                        help="members that a cluster of each level gives to a resampling")  # fmt: skip
    parser.add_argument("--resamples", type=int, default=1, help="per level of the large clustering")
    parser.add_argument("--iterations", type=int, default=5, help="most Lloyd iterations of each of its k-means")
    parser.add_argument("--no-speed", action="store_true", help="leave the peer and the timing out")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, not how fast")
    options = parser.parse_args(argv)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    levels = [Level(1000, 10, 10), Level(100, 3, 10)]
    if len(options.clusters) != len(options.samples):
        parser.error("--clusters and --samples need a number for each level")
    large = [
        {"clusters": clusters, "sample_size": members, "resamples": options.resamples}
        for clusters, members in zip(options.clusters, options.samples, strict=True)
    ]
    if options.quick:
        options.points, options.seeds, options.memory_rows = 3000, 1, 3000
        levels = [Level(60, 10, 1), Level(20, 3, 1)]
        large = [{**level, "clusters": level["clusters"] // 20} for level in large]
    print(f"{options.points} points of {DIM} dimensions, {threads} threads", flush=True)
    if not options.no_speed:
        speed(mixture(options.points)[0], levels, threads)
    if options.seeds:
        for spread in options.spreads:
            entropies(options.points, levels, options.seeds, spread, with_peer=spread == options.spreads[0])
    if options.memory_rows:
        memory(options.memory_rows, options.dimensions, large, options.iterations)


if __name__ == "__main__":
    main()
