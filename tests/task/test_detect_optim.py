"""Rates by layer, weight decay and schedules of a detector."""

import pytest
import timm
import torch
from torch import nn

from skyloom.errors import ConfigError
from skyloom.task.detect_optim import DetectRecipe

USUAL = {
    "optimizer": "adamw", "learning_rate": 1.0, "learning_rate_end": 0.0, "backbone_lr_scale": 1.0, "layer_decay": 1.0,
    "weight_decay": 0.1, "warmup_steps": 0, "schedule": "multistep", "schedule_unit": "epochs", "milestones": [2, 4],
    "gamma": 0.1,
}  # fmt: skip


def recipe(**changed):
    return DetectRecipe(**{**USUAL, **changed})


def network(name="test_vit", **more):
    whole = nn.Module()
    whole.backbone, whole.head, whole.queries = nn.Module(), nn.Linear(4, 4), nn.Embedding(3, 4)
    whole.backbone.model = timm.create_model(name, num_classes=0, **more)
    return whole


def of_each(whole, **changed):
    """Learning rate and weight decay of each weight, by name."""
    groups = recipe(**changed).groups(whole, [whole.backbone])
    names = {id(p): name for name, p in whole.named_parameters()}
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names), "each weight once"
    return found


def test_norms_biases_and_tables_of_positions_do_not_decay():
    swin = {"img_size": 32, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
    found = of_each(network("swin_tiny_patch4_window7_224", **swin))
    plain = {name for name, (_, decay) in found.items() if decay == 0}
    assert plain == {
        name for name in found
        if name.endswith(".bias") or ".norm" in name or "relative_position_bias_table" in name or "queries" in name
    }  # fmt: skip
    assert any("relative_position_bias_table" in name for name in plain)
    assert {decay for _, decay in found.values()} == {0.0, 0.1}
    assert {"backbone.model.pos_embed", "backbone.model.cls_token"} <= {
        name for name, (_, decay) in of_each(network()).items() if decay == 0
    }


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_layer_decay_slows_lower_layers(model):
    found = of_each(network(model), layer_decay=0.5, backbone_lr_scale=0.4)
    lower = {
        "test_vit": ["patch_embed.proj", "blocks.0.attn.qkv", "blocks.1.attn.qkv"],
        "test_resnet": ["conv1.0", "layer1.0.conv1", "layer2.0.conv1"],
    }[model]
    rates = [found[f"backbone.model.{name}.weight"][0] for name in lower]
    assert rates[0] < rates[1] < rates[2] <= 0.4
    assert found["head.weight"] == (1.0, 0.1)
    if model == "test_vit":
        assert rates[2] / rates[1] == pytest.approx(2)
    alike = of_each(network(model), backbone_lr_scale=0.4)
    assert {rate for name, (rate, _) in alike.items() if name.startswith("backbone")} == {0.4}


def test_layers_that_are_not_known_are_refused():
    whole = nn.Module()
    whole.backbone = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="layers of this backbone are not known"):
        recipe(layer_decay=0.5).groups(whole, [whole.backbone])


def test_multistep_and_warm_up_in_epochs_and_steps():
    assert [recipe().factor(step, 15, 3) for step in (0, 5, 6, 11, 12, 14)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    in_steps = recipe(schedule_unit="steps", milestones=[3], warmup_steps=2)
    assert [in_steps.factor(step, 15, 3) for step in range(5)] == pytest.approx([0.5, 1, 1, 0.1, 0.1])
    assert recipe(milestones=[0.5]).factor(2, 15, 4) == pytest.approx(0.1), "parts of epochs"
    assert [recipe(schedule="constant").factor(step, 9, 3) for step in (0, 8)] == [1, 1]


def test_cosine_falls_to_its_end():
    by_step = recipe(schedule="cosine", schedule_unit="steps", learning_rate_end=0.1, warmup_steps=4, milestones=[])
    factors = [by_step.factor(step, 24, 4) for step in range(24)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[14] == pytest.approx(0.55), "half way"
    assert 0.1 < factors[-1] < 0.12
    by_epoch = recipe(schedule="cosine", milestones=[])
    factors = [by_epoch.factor(step, 12, 4) for step in range(12)]
    assert factors[0] == factors[3] == 1 > factors[4] == factors[7] > factors[8] == factors[11] > 0


def test_the_schedule_keeps_the_ratios_of_the_groups():
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    own = recipe(milestones=[1])
    optimizer = own.build([{"params": weights[:1], "lr": 0.2}, {"params": weights[1:], "lr": 1.0}])
    scheduler = own.scheduler(optimizer, 4, 2)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schedule": "cosin"}, "task.schedule=cosin is not known.*Did you mean 'cosine'"),
        ({"schedule_unit": "days"}, "task.schedule_unit=days"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"learning_rate_end": 2.0}, "learning_rate_end=2.0: expected 0 to 1.0"),
        ({"layer_decay": 0.0}, "layer_decay=0.0: expected above 0"),
        ({"milestones": [3, 2]}, "expected rising numbers"),
        ({"milestones": []}, "multistep needs task.milestones"),
    ],
)
def test_recipes_that_cannot_be(changed, message):
    with pytest.raises(ConfigError, match=message):
        recipe(**changed)
