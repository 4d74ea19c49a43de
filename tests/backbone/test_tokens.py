import pytest
import torch
from torch import nn

from skyloom.backbone import build_backbone
from skyloom.backbone.tokens import MaskToken, patch_grid, patch_tokens, require_patch_tokens, set_drop_path
from skyloom.errors import ConfigError, InputError

IMAGES = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
REGISTERS = "vit_little_patch16_reg1_gap_256.sbb_in12k_ft_in1k"  # one register, no class token, mean over patches


@pytest.fixture(scope="module", params=["test_vit", "vit_tiny_patch16_224", REGISTERS])
def vit(request):
    return build_backbone(request.param, image_size_px=64).eval()


def test_tokens_are_those_of_the_network(vit):
    with torch.inference_mode():
        pooled, patches = patch_tokens(vit, IMAGES)
        tokens = vit.model.forward_features(IMAGES)
        assert torch.equal(pooled, vit(IMAGES))
    assert patch_grid(vit, IMAGES) == (4, 4)
    assert torch.equal(patches, tokens[:, vit.model.num_prefix_tokens :])
    assert patches.shape == (2, 16, vit.num_features)


def test_hidden_patches_do_not_matter_and_others_do(vit):
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 5] = True  # second row, second column
    token = torch.full((vit.num_features,), 0.1)
    hidden, seen = IMAGES.clone(), IMAGES.clone()
    hidden[0, :, 16:32, 16:32] = 0.7
    seen[0, :, 0:16, 16:32] = 0.7
    with torch.inference_mode():
        _, first = patch_tokens(vit, IMAGES, mask, token)
        assert torch.equal(patch_tokens(vit, hidden, mask, token)[1], first)
        assert not torch.allclose(patch_tokens(vit, seen, mask, token)[1][0], first[0], atol=1e-3)
        _, plain = patch_tokens(vit, IMAGES)
        assert not torch.allclose(first[0, 5], plain[0, 5], atol=1e-3)
        torch.testing.assert_close(first[1], plain[1])  # an image without a mask is as it was
        assert torch.equal(patch_tokens(vit, IMAGES)[1], plain)  # nothing of the mask stays behind


def test_positions_of_hidden_patches_are_known(vit):
    mask = torch.ones(2, 16, dtype=torch.bool)
    with torch.inference_mode():
        _, patches = patch_tokens(vit, IMAGES, mask, torch.zeros(vit.num_features))
    assert not torch.allclose(patches[0, 0], patches[0, 15], atol=1e-4)


def test_the_mask_token_gets_a_gradient():
    vit, token = build_backbone("test_vit"), MaskToken(64)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 3] = True
    patch_tokens(vit, IMAGES, mask, token.value)[1].square().sum().backward()
    assert token.value.grad.abs().sum() > 0


def test_a_mask_that_does_not_fit():
    vit = build_backbone("test_vit")
    with pytest.raises(InputError, match=r"expected a mask of \(2, 16\)"):
        patch_tokens(vit, IMAGES, torch.zeros(2, 9, dtype=torch.bool), torch.zeros(64))


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_backbones_without_patch_tokens_are_refused(name):
    with pytest.raises(ConfigError, match=f"task=dinov2 hides patches, and {name} has no patch tokens"):
        require_patch_tokens(build_backbone(name), "task=dinov2")
    with pytest.raises(ConfigError, match="Linear has no patch tokens"):
        require_patch_tokens(nn.Linear(2, 2), "task=dinov2")


def test_drop_path_rises_to_its_rate_and_acts_in_training_only():
    vit = build_backbone("vit_tiny_patch16_224")
    plain = vit.eval()(IMAGES)
    set_drop_path(vit, 0.5, "task=dino")
    rates = [block.drop_path1.drop_prob for block in vit.model.blocks]
    assert rates == pytest.approx([0.5 * i / 11 for i in range(12)])
    torch.testing.assert_close(vit.eval()(IMAGES), plain)
    with torch.random.fork_rng(devices=[]):
        assert not torch.allclose(vit.train()(IMAGES), plain)
    with pytest.raises(ConfigError, match=r"task\.drop_path_rate=0 for test_resnet"):
        set_drop_path(build_backbone("test_resnet"), 0.1, "task=dino")
    with pytest.raises(ConfigError, match="drop_path_rate=1"):
        set_drop_path(vit, 1.0, "task=dino")


def test_swin_takes_other_sizes_when_it_must():
    swin = build_backbone("swin_tiny_patch4_window7_224").eval()
    whole = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = swin(whole)
        with pytest.raises(InputError, match="built for 224 px"):
            swin(whole[..., :96, :96])
        swin.accept_any_size()
        torch.testing.assert_close(swin(whole), before)
        assert swin(whole[..., :96, :96]).shape == (1, 768)
