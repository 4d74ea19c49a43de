"""The parts of a Cascade Mask R-CNN, made of detectron2's own classes; the only module that builds them."""

from dataclasses import dataclass
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ResNet, SwinTransformer
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)

from skyloom.detector.options import BoxOptions, CentroidOptions, MaskOptions, PyramidOptions, RoiOptions, RpnOptions
from skyloom.errors import ConfigError, unknown_choice

# Width, blocks and heads of the stages (Liu et al. 2021, arXiv:2103.14030, section 3.3); windows of 7 x 7.
SWIN = {
    "swin_t": (96, [2, 2, 6, 2], [3, 6, 12, 24]),
    "swin_s": (96, [2, 2, 18, 2], [3, 6, 12, 24]),
    "swin_b": (128, [2, 2, 18, 2], [4, 8, 16, 32]),
    "swin_l": (192, [2, 2, 18, 2], [6, 12, 24, 48]),
}
RESNET = {"resnet50": 50, "resnet101": 101}
NORM = {"layer": "LN", "batch": "BN", "none": ""}
STRIDES_PX = [4, 8, 16, 32, 64]
MAPS = ["p2", "p3", "p4", "p5", "p6"]  # the last is only for proposals


def pyramid(network: str, in_chans: int, options: PyramidOptions) -> Any:
    """Build the network and the pyramid on its maps.

    Raises
    ------
    ConfigError
        The network is unknown, or cannot do what an option asks for.
    """
    if network in SWIN:
        width, blocks, heads = SWIN[network]
        names = ["p0", "p1", "p2", "p3"]
        bottom: Any = SwinTransformer(
            in_chans=in_chans,
            embed_dim=width,
            depths=blocks,
            num_heads=heads,
            drop_path_rate=options.drop_path or 0.0,
            use_checkpoint=options.checkpointing,
        )
    elif network in RESNET:
        if options.drop_path or options.checkpointing:
            raise ConfigError(f"detector.network={network}: pyramid.drop_path and pyramid.checkpointing need a Swin")
        names = ["res2", "res3", "res4", "res5"]
        stages = ResNet.make_default_stages(RESNET[network], norm="BN", stride_in_1x1=True)
        bottom = ResNet(BasicStem(in_channels=in_chans, out_channels=64, norm="BN"), stages, out_features=names)
    else:
        raise unknown_choice("detector.network", network, [*SWIN, *RESNET])
    return FPN(bottom, names, options.channels, norm=NORM[options.norm], top_block=LastLevelMaxPool())


def proposals(channels: int, options: RpnOptions) -> Any:
    """Build the region proposal network on maps of a width.

    Raises
    ------
    ConfigError
        There is not one anchor size for each map.
    """
    if len(options.anchor_sizes_px) != len(MAPS):
        raise ConfigError(
            f"detector.rpn.anchor_sizes_px has {len(options.anchor_sizes_px)} sizes, but the pyramid has {len(MAPS)} "
            f"maps of strides {', '.join(map(str, STRIDES_PX))} px; give one size for each"
        )
    ratios, ious = list(options.anchor_ratios), [options.negative_iou, options.positive_iou]
    return RPN(
        in_features=MAPS,
        head=StandardRPNHead(in_channels=channels, num_anchors=len(ratios), conv_dims=[-1] * options.convs),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[size] for size in options.anchor_sizes_px], aspect_ratios=ratios, strides=STRIDES_PX, offset=0.0
        ),
        anchor_matcher=Matcher(ious, [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=options.samples,
        positive_fraction=options.positive_fraction,
        pre_nms_topk=(options.candidates_train, options.candidates_test),
        post_nms_topk=(options.proposals_train, options.proposals_test),
        nms_thresh=options.nms,
        smooth_l1_beta=options.smooth_l1_beta,
    )


@dataclass(frozen=True)
class Pooled:
    """How the heads read the maps."""

    channels: int
    options: RoiOptions

    def shape(self, side: int) -> ShapeSpec:
        """Return the shape of what is read in a box."""
        return ShapeSpec(channels=self.channels, height=side, width=side)

    def reader(self, side: int) -> Any:
        """Return the module that reads it."""
        return ROIPooler(
            side,
            tuple(1 / stride for stride in STRIDES_PX[:-1]),
            sampling_ratio=self.options.sampling_ratio,
            pooler_type="ROIAlignV2" if self.options.aligned else "ROIAlign",
            canonical_box_size=self.options.canonical_size_px,
        )


def heads(
    pooled: Pooled,
    classes: int,
    *,
    box: BoxOptions,
    mask: MaskOptions,
    centroid: CentroidOptions,
    score_floor: float,
    top_k: int,
) -> Any:
    """Build the box stages, the masks and, if wanted, the centroids.

    Their predictions are all candidates above the lowest score: overlaps are left to
    :func:`skyloom.detector.candidates.select`.
    """
    bodies, ends = [], []
    for shift, size in box.weights:
        bodies.append(
            FastRCNNConvFCHead(
                pooled.shape(box.resolution),
                conv_dims=[box.channels] * box.convs,
                fc_dims=list(box.fc),
                conv_norm=NORM[box.norm],
            )
        )
        ends.append(
            FastRCNNOutputLayers(
                bodies[-1].output_shape,
                box2box_transform=Box2BoxTransform(weights=(shift, shift, size, size)),
                num_classes=classes,
                test_score_thresh=score_floor,
                test_nms_thresh=1.0,
                test_topk_per_image=top_k,
                cls_agnostic_bbox_reg=box.class_agnostic,
                smooth_l1_beta=box.smooth_l1_beta,
            )
        )
    options: dict[str, Any] = {
        "num_classes": classes,
        "batch_size_per_image": box.samples,
        "positive_fraction": box.positive_fraction,
        "box_in_features": MAPS[:-1],
        "box_pooler": pooled.reader(box.resolution),
        "mask_in_features": MAPS[:-1],
        "mask_pooler": pooled.reader(mask.resolution),
        "mask_head": MaskRCNNConvUpsampleHead(
            pooled.shape(mask.resolution),
            num_classes=classes,
            conv_dims=[mask.channels] * (mask.convs + 1),  # the last one doubles the side
            conv_norm=NORM[mask.norm],
        ),
    }
    if centroid.enabled:
        options |= {
            "keypoint_in_features": MAPS[:-1],
            "keypoint_pooler": pooled.reader(centroid.resolution),
            "keypoint_head": KRCNNConvDeconvUpsampleHead(
                pooled.shape(centroid.resolution),
                num_keypoints=1,
                conv_dims=[centroid.channels] * centroid.convs,
                loss_normalizer="visible",
            ),
        }
    matchers = [Matcher([iou], [0, 1], allow_low_quality_matches=False) for iou in box.ious]
    if len(bodies) == 1:
        return StandardROIHeads(box_head=bodies[0], box_predictor=ends[0], proposal_matcher=matchers[0], **options)
    return CascadeROIHeads(box_heads=bodies, box_predictors=ends, proposal_matchers=matchers, **options)
