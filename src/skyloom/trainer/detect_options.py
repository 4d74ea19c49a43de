"""Options of the group ``trainer`` as a detector reads them: with validation, without measures of a representation."""

from typing import Any

from skyloom.trainer.options import TrainerOptions


class DetectTrainerOptions(TrainerOptions):
    """Like its base; only the id differs, since ``validation`` decides the result and ``monitor`` does not."""

    def parameter(self) -> dict[str, Any]:
        """What enters an id."""
        usual = {key: value for key, value in super().parameter().items() if key != "monitor"}
        return {**usual, "validation": self.validation.model_dump()}

    def without_monitor(self) -> "DetectTrainerOptions":
        """The same, measuring no representation: a detector has no vector for an image."""
        return self.model_copy(update={"monitor": self.monitor.model_copy(update={"images": 0})})
