import pytest
import torch

from skyloom.backbone import LayerReader, build_backbone
from skyloom.errors import ConfigError

IMAGES = torch.rand(2, 1, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    return build_backbone("resnet18").eval()


@pytest.fixture(scope="module", params=["vit_small_patch14_dinov2.lvd142m", "vit_small_patch14_reg4_dinov2.lvd142m"])
def vit(request):
    return build_backbone(request.param, image_size_px=56).eval()


@pytest.fixture(scope="module")
def swin():
    return build_backbone("swin_tiny_patch4_window7_224", image_size_px=56).eval()


def read(backbone, layer):
    with torch.inference_mode():
        reader = LayerReader(backbone, layer).measure(56)
        vectors = reader(IMAGES)
    assert vectors.shape == (2, reader.num_features)
    assert vectors.dtype == torch.float32
    return vectors


def test_pooled_is_the_network_itself(resnet):
    with torch.inference_mode():
        assert torch.equal(read(resnet, "pooled"), resnet(IMAGES))


def test_maps_are_averaged_over_the_image(resnet):
    torch.testing.assert_close(read(resnet, "patch_mean"), read(resnet, "pooled"))
    torch.testing.assert_close(read(resnet, "layer4"), read(resnet, "pooled"))
    with torch.inference_mode():
        expected = resnet.model.layer1(resnet.model.maxpool(resnet.model.act1(resnet.model.bn1(
            resnet.model.conv1(IMAGES))))).mean((2, 3))  # fmt: skip
    torch.testing.assert_close(read(resnet, "layer1.1"), expected)


def test_tokens_of_a_transformer(vit):
    with torch.inference_mode():
        tokens = vit.model.forward_features(IMAGES)
    extra = vit.model.num_prefix_tokens
    assert tokens.shape == (2, extra + 16, 384)
    torch.testing.assert_close(read(vit, "cls"), tokens[:, 0])
    torch.testing.assert_close(read(vit, "pooled"), tokens[:, 0])
    torch.testing.assert_close(read(vit, "patch_mean"), tokens[:, extra:].mean(1))
    torch.testing.assert_close(read(vit, "norm"), tokens[:, extra:].mean(1))
    assert read(vit, "blocks.3.mlp.fc1").shape == (2, 1536)


def test_maps_of_swin_have_their_channels_last(swin):
    torch.testing.assert_close(read(swin, "patch_mean"), read(swin, "pooled"))
    assert read(swin, "layers.0").shape == (2, 96)
    assert read(swin, "patch_embed.proj").shape == (2, 96)
    with pytest.raises(ConfigError, match=r"layer=layers\.0\.blocks\.0\.attn: gives .* for 1 image"):
        read(swin, "layers.0.blocks.0.attn")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer5", r"resnet18 has no such module; choose pooled, cls, patch_mean, or a module in conv1, .*layer4"),
        ("poled", "did you mean pooled"),
        ("cls", "resnet18 has no class token"),
        ("fc.weight", "has no such module"),
    ],
)
def test_unknown_layers_name_near_ones(resnet, layer, message):
    with pytest.raises(ConfigError, match=message) as raised:
        LayerReader(resnet, layer)
    assert "\n" not in str(raised.value)


def test_a_module_that_is_not_used_is_refused(resnet):
    resnet.model.spare = torch.nn.Linear(2, 2)
    try:
        with pytest.raises(ConfigError, match="does not use this module"):
            read(resnet, "spare")
    finally:
        del resnet.model.spare
