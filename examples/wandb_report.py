"""Makes a report page in Weights & Biases for a project: curves, the table of runs, and what differs between them.

Needs ``pip install wandb-workspaces`` and ``wandb login``. The page is saved as a draft, to be edited there.
"""

import argparse
import sys
from typing import Any

CURVES = {
    "Training": ["train/loss", "monitor/learning_rate", "monitor/grad_norm"],
    "Representation": ["monitor/rankme", "monitor/collapse_std", "monitor/knn_accuracy"],
    "Detection": ["val/mask_ap", "val/mask_ap50", "val/loss"],
    "Pace": ["images_per_s"],
}
OPTIONS = ["task.learning_rate", "datamodule.batch_size", "backbone.model", "seed"]


def page(entity: str, project: str, group: str | None) -> Any:
    """Compose the page, without sending it."""
    import wandb_workspaces.reports.v2 as wr

    filters = f"Metric('group') == '{group}'" if group else ""
    runs = wr.Runset(entity=entity, project=project, name=group or "all runs", filters=filters)
    blocks: list[Any] = [wr.TableOfContents()]
    for title, metrics in CURVES.items():
        panels = [wr.LinePlot(x="trainer/global_step", y=[metric], title=metric) for metric in metrics]
        blocks += [wr.H2(title), wr.PanelGrid(runsets=[runs], panels=panels)]
    best = wr.ParallelCoordinatesPlot(
        columns=[*(wr.ParallelCoordinatesPlotColumn(f"c::{key}") for key in OPTIONS),
                 wr.ParallelCoordinatesPlotColumn("train/loss")],
    )  # fmt: skip
    compared = wr.PanelGrid(runsets=[runs], panels=[wr.RunComparer(diff_only="split"), best])
    pictures = wr.PanelGrid(runsets=[runs], panels=[wr.MediaBrowser(media_keys=["overlays", "views"])])
    blocks += [wr.H2("What differs"), compared, wr.H2("Pictures"), pictures]
    return wr.Report(entity=entity, project=project, title=f"skyloom: {group or project}", blocks=blocks)


def main() -> None:
    """Read the command line, and save the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entity", required=True, help="user or team")
    parser.add_argument("--project", required=True, help="logger.wandb.project of the runs")
    parser.add_argument("--group", help="logger.wandb.group of the runs; all runs of the project without it")
    words = parser.parse_args()
    try:
        report = page(words.entity, words.project, words.group)
    except ModuleNotFoundError:
        sys.exit("error: the report needs wandb-workspaces: pip install wandb-workspaces")
    report.save(draft=True)
    print(report.url)


if __name__ == "__main__":
    main()
