"""What an export does around its graph, in NumPy and Pillow alone: the text of these functions goes into its `run.py`.

An image is resized until its shorter side is `shorter`, or a side is the graph's if that comes first, put into the top
left corner of the graph's input, and padded with 0 after the normalisation, as in training. Sizes are (height, width).
"""

import numpy
from PIL import Image, ImageDraw


def resized(image, size, shorter, resampling):
    """An image that fits, with its ratio."""
    factor = min(size[0] / image.height, size[1] / image.width, shorter / min(image.size))
    width, height = (max(int(pixels * factor + 0.5), 1) for pixels in image.size)
    return image if (width, height) == image.size else image.resize((width, height), resampling)


def letterboxed(image, size, mean, std):
    """An RGB image that fits as the graph takes it, float32 (1, 3, height, width)."""
    values = (numpy.asarray(image, "float32") / 255 - numpy.array(mean, "float32")) / numpy.array(std, "float32")
    images = numpy.zeros((1, 3, *size), "float32")
    images[0, :, : image.height, : image.width] = values.transpose(2, 0, 1)
    return images


def suppressed(boxes, scores, labels, score, overlap, most):
    """Indices of the detections above `score`, at most so many; of two of a class whose IoU exceeds `overlap` one."""
    order = numpy.argsort(-scores, kind="stable")
    order = order[scores[order] > score]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = []
    while len(order) and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(best)
        corners = numpy.minimum(boxes[best, 2:], boxes[order, 2:]), numpy.maximum(boxes[best, :2], boxes[order, :2])
        shared = (corners[0] - corners[1]).clip(0).prod(1)
        apart = shared <= overlap * (areas[best] + areas[order] - shared)
        order = order[apart | (labels[order] != labels[best])]
    return numpy.array(kept, dtype=numpy.int64)


def in_original(boxes, scales, size, masks):
    """Boxes in pixels of the original of a width and height, and which have an area there; those of masks uncut."""
    boxes = boxes / numpy.array([*scales, *scales], "float32")
    cut = boxes.clip(0, numpy.array([*size, *size], "float32"))
    return boxes if masks else cut, (cut[:, 2:] > cut[:, :2]).all(1)


def pasted(mask, box, size):
    """Which pixels (height, width) of an image a mask over a box has, sampled at their centres: 0.5 or more."""
    weights = []
    for pixels, low, high, cells in ((size[1], box[1], box[3], len(mask)), (size[0], box[0], box[2], mask.shape[1])):
        places = (numpy.arange(pixels) + 0.5 - low) / (high - low) * cells - 0.5
        weights.append((1 - abs(places[:, None] - numpy.arange(cells))).clip(0))
    return weights[0] @ mask @ weights[1].T >= 0.5


def coco_results(boxes, scores, labels, categories, image_id, masks):
    """COCO's results: boxes as [left, top, width, height], masks as lengths of runs down the columns, first outside."""
    results = [
        {"image_id": image_id, "category_id": categories[k], "bbox": [a, b, c - a, d - b], "score": score}
        for (a, b, c, d), score, k in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]
    for result, mask in zip(results, masks, strict=False):
        values = numpy.concatenate([[False], mask.T.ravel()])
        ends = numpy.flatnonzero(values[1:] != values[:-1])
        counts = numpy.diff([0, *ends.tolist(), mask.size]).tolist()
        result["segmentation"] = {"size": list(mask.shape), "counts": counts}
    return results


def drawn(image, boxes, scores, labels, names, masks):
    """The image with masks, boxes, names and scores, the surest on top."""
    colours = ["red", "lime", "yellow", "cyan", "magenta", "orange"]
    image = image.copy()
    for mask, label in list(zip(masks, labels.tolist(), strict=False))[::-1]:
        image.paste(colours[label % len(colours)], mask=Image.fromarray((mask * 115).astype("uint8")))
    draw = ImageDraw.Draw(image)
    for box, score, label in list(zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True))[::-1]:
        colour = colours[label % len(colours)]
        draw.rectangle(box, outline=colour, width=max(1, round(min(image.size) / 240)))
        text, corner = f"{names[label]} {score:.2f}", (box[0], max(box[1] - 12, 0))
        draw.rectangle(draw.textbbox(corner, text), fill=colour)
        draw.text(corner, text, fill="black")
    return image
