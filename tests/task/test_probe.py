import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from skyloom.errors import InputError
from skyloom.task.probe import ProbeTask
from skyloom.transform import Preprocess


class Net(nn.Module):
    num_features = 4

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, images):
        return self.conv(images).amax((2, 3))


def task(**options) -> ProbeTask:
    scaling = Preprocess(stretch="linear", clip="none", image_size_px=8, channels=1)
    return ProbeTask(Net(), scaling, None, **{"classes": 2, "multi_label": False, "seed": 0, **options})


def batch(seed=0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(8, 1, 8, 8)).astype("f4"))
    return {"image": images, "id": torch.arange(8), "target": torch.arange(8) % 2}


def fit(module, batches, epochs=1):
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
def test_backbone_and_layer_both_learn_at_their_own_rates():
    module = task(learning_rate=0.01, head_learning_rate=0.1, warmup_fraction=0.0)
    before = module.backbone.conv.weight.clone(), module.head.weight.clone()
    fit(module, [batch()])
    after = module.backbone.conv.weight, module.head.weight
    moved = [(new - old).abs().max().item() for old, new in zip(before, after, strict=True)]
    assert moved[0] == pytest.approx(0.01, rel=0.05)  # Adam's first step is as long as the rate
    assert moved[1] == pytest.approx(0.1, rel=0.05)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
def test_a_few_images_are_learnt_by_heart():
    module = task(learning_rate=0.05, head_learning_rate=0.05)
    fit(module, [batch()], epochs=150)
    scores = module.eval().predict_step(batch(), 0)
    assert (scores.argmax(1) == torch.arange(8) % 2).all()
    assert torch.allclose(scores.sum(1), torch.ones(8))


def test_the_layer_depends_on_the_seed_alone():
    torch.manual_seed(5)
    first = task(seed=3).head.weight
    torch.manual_seed(6)
    assert torch.equal(task(seed=3).head.weight, first)
    assert not torch.equal(task(seed=4).head.weight, first)


def test_several_labels_get_a_probability_each():
    module = task(multi_label=True).eval()
    nn.init.constant_(module.head.bias, 3.0)
    nn.init.zeros_(module.head.weight)
    assert module.predict_step(batch(), 0).min().item() == pytest.approx(1 / (1 + np.exp(-3)))


def test_a_loss_that_is_not_finite_names_the_cutouts():
    module = task()
    nn.init.constant_(module.head.bias, float("nan"))
    with pytest.raises(InputError, match=r"cutout ids \[0, 1, 2, 3, 4\]"):
        module.training_step(batch(), 0)
