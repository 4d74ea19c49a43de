"""step=deepdisc_import: the annotations of DeepDISC as a data set."""

from skyloom.step.deepdisc_import.step import deepdisc_import

__all__ = ["deepdisc_import"]
