"""What the task ``probe`` can be told."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Fraction = Annotated[float, Field(gt=0, le=1)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KnnOptions(_Options):
    """Options of the k-nearest-neighbour probe.

    Attributes
    ----------
    k
        Numbers of neighbours; of several, the best on the validation items is taken.
    temperature
        A neighbour of cosine similarity s weighs exp(s / temperature).
    """

    k: Annotated[list[PositiveInt], Field(min_length=1)]
    temperature: PositiveFloat


class LinearOptions(_Options):
    """Options of the linear probe.

    Attributes
    ----------
    l2
        Strengths of the penalty on the weights; of several, the best on the validation items is taken.
    class_weight
        ``balanced`` makes every class count the same in the loss, ``none`` every cutout.
    max_iterations
        Most steps of L-BFGS.
    """

    l2: Annotated[list[PositiveFloat], Field(min_length=1)]
    class_weight: Literal["none", "balanced"]
    max_iterations: PositiveInt


class FinetuneOptions(_Options):
    """Options of the fine-tuning of a whole network.

    Attributes
    ----------
    epochs
        Passes over the training items.
    min_steps
        Steps at least; few labels are passed over more often.
    batch_size
        Cutouts per step; at most the training items.
    learning_rate, head_learning_rate
        Peaks for the backbone and for the new linear layer, after the warm-up.
    weight_decay
        Of AdamW, not on biases and normalisation.
    warmup_fraction
        Part of the steps in which the learning rate rises.
    class_weight
        ``balanced`` makes every class count the same in the loss, ``none`` every cutout.
    augment
        Whether training images are turned, cropped and so on as ``transform.augment`` says.
    precision, accelerator
        Arithmetic and device, in Lightning's words.
    """

    epochs: PositiveInt
    min_steps: NonNegativeInt
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: PositiveFloat
    head_learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)]
    class_weight: Literal["none", "balanced"]
    augment: bool
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]
    accelerator: Literal["auto", "cpu", "gpu", "mps"]


class ProbeOptions(_Options):
    """Options of ``task=probe``.

    Attributes
    ----------
    name
        ``probe``.
    method
        ``knn``, ``linear`` or ``finetune``.
    split
        ``official``: train, val and test of the labels; ``folds``: each fold tests once, those of the labels or drawn
        ones; ``auto``: official where there is a train and a test part, else folds.
    folds
        How many are drawn where the labels bring none; their groups stay whole.
    inner_folds
        Folds of the training items that choose between candidates where there is no validation part.
    fractions
        Parts of the training labels that are used, each class at least once.
    seeds
        How often what is random is drawn: subsets, folds, start of training.
    knn, linear, finetune
        Options of the methods.
    """

    name: Literal["probe"]
    method: Literal["knn", "linear", "finetune"]
    split: Literal["auto", "official", "folds"]
    folds: Annotated[int, Field(ge=2)]
    inner_folds: Annotated[int, Field(ge=2)]
    fractions: Annotated[list[Fraction], Field(min_length=1)]
    seeds: PositiveInt
    knn: KnnOptions
    linear: LinearOptions
    finetune: FinetuneOptions

    def parameter(self) -> dict[str, Any]:
        """What enters an id: the options of the chosen method only, and not where it runs."""
        everything = self.model_dump()
        own = {key: value for key, value in everything[self.method].items() if key != "accelerator"}
        if self.method == "finetune":
            everything.pop("inner_folds")  # nothing is chosen
        return {k: v for k, v in everything.items() if k not in ("knn", "linear", "finetune")} | {self.method: own}
