"""From the logits of queries to candidates: boxes, and masks cut out around them in memory that follows the objects."""

import torch
from torch import Tensor
from torch.nn import functional

from skyloom.detector.candidates import Candidates
from skyloom.detector.pixel_masks import pasting_boxes
from skyloom.detector.region_heads import chunks

CELLS = 2**24  # pixels or cells of masks that are held at a time, about 64 MB each time they are copied
BELOW = 0.4995  # next below 0.5 that float16 can tell from it


def candidates(
    classes: Tensor,
    masks: Tensor,
    *,
    size_px: tuple[int, int],
    padded_px: tuple[int, int],
    score_floor: float,
    top_k: int,
    most_px: int,
) -> Candidates:
    """Pair queries of one image with classes.

    Parameters
    ----------
    classes
        float32 (q, classes + 1), logits; the last is that of no object.
    masks
        float32 (q, h, w), logits on a grid over the padded image.
    size_px, padded_px
        Height and width of the image and of the padded one, px.
    score_floor, top_k
        Least score and largest number of candidates.
    most_px
        Of `cut_masks`.

    Returns
    -------
    Candidates
        Those with pixels; the score is the probability of the class times the sureness of the mask.
    """
    probability = classes.softmax(1)[:, :-1]
    hopeful = (probability >= score_floor).any(1).nonzero()[:, 0]  # sureness can only lower a score
    probability, masks = probability[hopeful], masks[hopeful]
    boxes, sureness = mask_boxes(masks, size_px=size_px, padded_px=padded_px)
    scores = probability * sureness[:, None]
    good = (scores >= score_floor) & torch.isfinite(scores) & (boxes[:, 2:] > boxes[:, :2]).all(1)[:, None]
    query, label = good.nonzero(as_tuple=True)
    if len(query) > top_k:
        best = scores[query, label].topk(top_k).indices
        query, label = query[best], label[best]
    kept, place = query.unique(return_inverse=True)  # classes of a query share its mask
    cut, places = cut_masks(masks[kept], boxes[kept], padded_px=padded_px, most_px=most_px)
    return Candidates(size_px, boxes[query], scores[query, label], label, cut[place], places[place])


def mask_boxes(logits: Tensor, *, size_px: tuple[int, int], padded_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the box around the pixels of each mask, and how sure they are.

    Parameters
    ----------
    logits
        float32 (m, h, w), a grid over the padded image.
    size_px, padded_px
        Height and width of the image and of the padded one, px.

    Returns
    -------
    boxes : Tensor
        float32 (m, 4), whole px, x0, y0, x1, y1; no area where no pixel has a probability of 0.5 or more.
    sureness : Tensor
        float32 (m,), mean probability of these pixels; 0 without any.
    """
    height, width = size_px
    boxes, sureness = [logits.new_zeros(0, 4)], [logits.new_zeros(0)]
    for piece in chunks(len(logits), max(1, CELLS // (padded_px[0] * padded_px[1]))):
        grown = functional.interpolate(logits[piece][None], size=padded_px, mode="bilinear", align_corners=False)[0]
        grown = grown[:, :height, :width]
        inside = grown >= 0
        x0, x1 = _ends(inside.any(1))
        y0, y1 = _ends(inside.any(2))
        boxes.append(torch.stack([x0, y0, x1, y1], 1).to(logits.dtype))
        total, number = (grown.sigmoid() * inside).sum((1, 2)), inside.sum((1, 2))
        sureness.append(total / number.clamp(min=1))
    return torch.cat(boxes), torch.cat(sureness)


def cut_masks(logits: Tensor, boxes: Tensor, *, padded_px: tuple[int, int], most_px: int) -> tuple[Tensor, Tensor]:
    """Cut the masks out around their boxes.

    All masks of an image are squares of one size. An object of up to ``most_px`` has a cell on each of its pixels; of a
    larger one a cell covers 2, 3, … pixels along a side.

    Parameters
    ----------
    logits
        float32 (m, h, w), a grid over the padded image.
    boxes
        float32 (m, 4), whole px, each with an area.
    padded_px
        Height and width of the padded image.
    most_px
        Most cells along a side that an object takes.

    Returns
    -------
    masks : Tensor
        float16 (m, side, side), probabilities.
    places : Tensor
        float32 (m, 4), the boxes over which they are pasted, see :func:`skyloom.detector.pixel_masks.pasting_boxes`.
    """
    if not len(boxes):
        return logits.new_zeros(0, 1, 1, dtype=torch.float16), boxes
    extent = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    cell = (extent / most_px).ceil()
    around = (cell > 1).to(cell.dtype)  # interpolation between cells needs one beyond the edge
    side = int(((extent / cell).ceil() + 2 * around).max())
    first = boxes[:, :2] - (around * cell)[:, None]
    height, width = padded_px
    scale = boxes.new_tensor([2 / width, 2 / height])
    steps = torch.arange(side, device=boxes.device) + 0.5
    masks = []
    for piece in chunks(len(boxes), max(1, CELLS // max(side * side, logits[0].numel()))):
        x, y = (first[piece, axis, None] + steps * cell[piece, None] for axis in (0, 1))
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1) * scale - 1
        found = functional.grid_sample(logits[piece, None], grid, padding_mode="border", align_corners=False)[:, 0]
        found = found.sigmoid()
        masks.append(torch.where(found < 0.5, found.clamp(max=BELOW), found).half())
    places = pasting_boxes(first.cpu().numpy(), side, cell_px=cell[:, None].cpu().numpy())
    return torch.cat(masks), torch.from_numpy(places).to(boxes)


def _ends(there: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true place of each row; 0 and 0 of a row without one."""
    some = there.any(1)
    first, last = there.int().argmax(1), there.shape[1] - there.flip(1).int().argmax(1)
    return first * some, last * some
