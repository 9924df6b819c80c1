import json
import math

import pytest
import torch
from tiny_training import listed, loss_of, task_of

from overtone.config import Augment, Recipe, Train
from overtone.data.pipeline import Batch
from overtone.errors import OvertoneError
from overtone.tasks.classification.report import ClassificationReport
from overtone.tasks.classification.task import balanced_weights

OUTPUTS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5], [0.0, 0.0, 4.0]])
TARGETS = torch.tensor([0, 1, 2, 1])


def cross_entropy(row, target):
    return math.log(sum(math.exp(value) for value in row)) - row[target]


def test_loss_is_the_sum_over_images():
    expected = sum(cross_entropy(row, target) for row, target in zip(OUTPUTS.tolist(), TARGETS.tolist(), strict=True))
    assert loss_of(task_of("abc"), OUTPUTS, TARGETS).item() == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_by_hand():
    task = task_of("abc", Recipe(train=Train(label_smoothing=0.3)))
    row = OUTPUTS[0].tolist()
    expected = 0.7 * cross_entropy(row, 0) + sum(0.1 * cross_entropy(row, c) for c in range(3))
    assert loss_of(task, OUTPUTS[:1], TARGETS[:1]).item() == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_by_hand():
    weights = balanced_weights((1, 3, 0))
    assert weights.tolist() == pytest.approx([4 / 2, 4 / 6, 0.0])
    assert (weights * torch.tensor([1.0, 3.0, 0.0])).sum() / 4 == pytest.approx(1)


def test_class_weights_weigh_the_loss_and_not_the_validation():
    recipe = Recipe(train=Train(class_weights="balanced"))
    task = task_of("abc", recipe, train=listed("abc", (1, 3, 2)))
    one_by_one = [loss_of(task, OUTPUTS[i : i + 1], TARGETS[i : i + 1]).item() for i in range(4)]
    weights = balanced_weights((1, 3, 2)).tolist()
    plain = [cross_entropy(row, t) for row, t in zip(OUTPUTS.tolist(), TARGETS.tolist(), strict=True)]
    assert one_by_one == pytest.approx([weights[t] * v for t, v in zip(TARGETS.tolist(), plain, strict=True)], rel=1e-6)
    assert loss_of(task, OUTPUTS, TARGETS).item() == pytest.approx(sum(one_by_one), rel=1e-6)
    tally = task.tally()
    tally.add(OUTPUTS, TARGETS)
    assert tally.report().loss == pytest.approx(sum(plain) / 4, rel=1e-6)
    assert loss_of(task_of("abc", recipe, train=None), OUTPUTS, TARGETS).item() == pytest.approx(sum(plain), rel=1e-6)


def mixed(task, images, seed):
    batch = task.prepare(Batch(images.clone(), TARGETS, torch.arange(4)), seed)
    assert batch.ids.tolist() == [0, 1, 2, 3]
    return batch.inputs, batch.targets


def test_mixing_gives_probabilities_by_seed_alone():
    task = task_of("abc", Recipe(augment=Augment(mixup=0.8, cutmix=1.0), train=Train(label_smoothing=0.1)))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first, shares = mixed(task, images, (1, 5))
    torch.rand(7)
    again, same = mixed(task, images, (1, 5))
    other, _ = mixed(task, images, (1, 6))
    assert torch.equal(first, again) and torch.equal(shares, same) and not torch.equal(first, other)
    assert torch.allclose(shares.sum(1), torch.ones(4))
    expected = -(shares * OUTPUTS.log_softmax(1)).sum()
    assert loss_of(task, OUTPUTS, shares).item() == pytest.approx(expected.item(), rel=1e-6)


def test_mixing_is_off_in_the_last_epochs():
    recipe = Recipe(augment=Augment(mixup=0.8, mix_off_epochs=2), train=Train(epochs=5, label_smoothing=0.1))
    task = task_of("abc", recipe, steps_per_epoch=7)
    images = torch.randn(4, 3, 8, 8)
    for step, is_mixed in ((0, True), (20, True), (21, False), (34, False)):  # three of five epochs
        given, targets = mixed(task, images, (0, step))
        assert (targets.ndim == 2) == is_mixed and torch.equal(given, images) != is_mixed
    smoothed = task_of("abc", Recipe(train=Train(label_smoothing=0.1)))
    assert loss_of(task, OUTPUTS, TARGETS) == loss_of(smoothed, OUTPUTS, TARGETS)
    with pytest.raises(ValueError, match="number of steps"):
        task_of("abc", recipe)


def test_nothing_is_mixed_where_the_recipe_does_not_say_so():
    images = torch.randn(4, 3, 8, 8)
    batch = Batch(images, TARGETS, torch.arange(4))
    assert task_of("abc").prepare(batch, (0, 0)) is batch


def test_report_counts_by_hand():
    tally = task_of(["a", "b", "c", "empty"]).tally()
    outputs = torch.cat([OUTPUTS, torch.full((4, 1), -9.0)], dim=1)
    tally.add(outputs[:3], TARGETS[:3])
    tally.add(outputs[3:], TARGETS[3:])
    report = tally.report(["x/bad.png"])
    assert (report.num_expected, report.num_used, report.bad) == (5, 4, ("x/bad.png",))
    assert report.correct_top1 == 2 and report.top1 == report.score == 50.0
    assert report.correct_top5 == 4
    assert report.confusion == ((1, 0, 0, 0), (0, 1, 1, 0), (1, 0, 0, 0), (0, 0, 0, 0))
    assert report.per_class == (100.0, 50.0, 0.0, None)
    # among four classes the right one is always in the first five: that is no figure
    assert report.figures() == {"val_loss": report.loss, "top1": 50.0}
    assert "top-5" not in report.tables()[0].columns


def test_top5_of_many_classes():
    tally = task_of([str(i) for i in range(10)]).tally()
    outputs = torch.arange(10.0).expand(3, 10)
    tally.add(outputs, torch.tensor([9, 5, 4]))
    report = tally.report()
    assert (report.correct_top1, report.correct_top5) == (1, 2)
    assert report.figures()["top5"] == report.top5 == pytest.approx(200 / 3)
    assert report.tables()[0].rows[0][3:5] == ("66.67 %", 2)


def test_report_survives_json():
    tally = task_of("abc").tally()
    tally.add(OUTPUTS, TARGETS)
    report = tally.report(["a.png"])
    assert ClassificationReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_loss_that_is_not_finite_is_no_number_in_json():
    tally = task_of("abc").tally()
    tally.add(torch.full((1, 3), math.nan), TARGETS[:1])
    assert json.loads(json.dumps(tally.report().to_dict()))["loss"] is None


def test_outputs_that_do_not_fit_the_classes():
    with pytest.raises(OvertoneError, match=r"\(4, 3\) for 2 labels"):
        loss_of(task_of("ab"), OUTPUTS, TARGETS)
