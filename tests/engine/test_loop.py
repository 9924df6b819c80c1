import copy
import math
from types import SimpleNamespace

import pytest
import torch
from tiny_training import task_of
from torch import nn

from overtone.config import Optim, Run
from overtone.data.pipeline import Batch
from overtone.engine.loop import Interrupted, Watch, evaluate, fit
from overtone.engine.optim import build_optimizer, moving_average
from overtone.engine.placement import Placement, place
from overtone.engine.state import State
from overtone.engine.step import NotFinite, Trainer, set_training_mode
from overtone.errors import OvertoneError

CPU = Placement(torch.device("cpu"))
BATCH, BATCHES = 6, 3


def make_batch(seed, size=BATCH, bad=()):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    return Batch(images, torch.randint(3, (size,), generator=generator), torch.arange(size) + 100 * seed, bad)


class FakeLoader:
    """Three batches an epoch, another order of seeds each epoch."""

    def __init__(self, batches=None):
        self.source = SimpleNamespace(name=lambda position: f"{position}.png")
        self.batches, self.epoch, self.first = batches, 0, 0

    def __len__(self):
        return BATCHES if self.batches is None else len(self.batches)

    def set_epoch(self, epoch, first_batch=0):
        self.epoch, self.first = epoch, first_batch

    def __iter__(self):
        batches = self.batches or [make_batch(10 * self.epoch + i) for i in range(BATCHES)]
        yield from batches[self.first :]


def make_trainer(model, *, lr=0.1, optim="sgd", average=None, **kwargs):
    model = CPU.model(copy.deepcopy(model))
    optimizer = build_optimizer(model, Optim(name=optim, lr=lr, momentum=kwargs.pop("momentum", 0.9)))
    trainer = Trainer(
        model,
        task_of("abc"),
        optimizer,
        lr_at=lambda step: lr / (1 + step),
        placement=CPU,
        average=moving_average(model, average),
        **kwargs,
    )
    trainer.start()
    return trainer


def weights(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def score_of(*values, losses=None):
    """A validation that finds these scores, and losses, one after the other."""
    remaining = zip(values, losses or [1.0] * len(values), strict=True)

    def validate():
        score, loss = next(remaining)
        return SimpleNamespace(score=score, loss=loss, score_name="points", figures=lambda: {"points": score})

    return validate


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 5, 6, 100])
def test_accumulated_gradients_equal_those_of_the_whole_batch(tiny, micro_batch):
    tiny.bn = nn.Identity()
    tiny.drop = nn.Identity()
    whole, parts = make_trainer(tiny), make_trainer(tiny, micro_batch=micro_batch)
    for trainer in (whole, parts):
        for step in range(2):
            trainer.step(make_batch(step), step)
    for first, second in zip(whole.parameters, parts.parameters, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)
    assert whole.loss_sum() == pytest.approx(parts.loss_sum(), rel=1e-6)


def test_no_part_of_a_batch_is_left_with_one_image(tiny):
    trainer = make_trainer(tiny, micro_batch=4)
    sizes = []
    trainer.model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    trainer.step(make_batch(0, size=5), 0)
    assert sizes == [3, 2]


def test_gradient_is_clipped_to_its_norm(tiny):
    for clip, expected in ((1e-3, 1e-3), (None, None)):
        trainer = make_trainer(tiny, lr=1.0, momentum=0.0, clip_grad=clip)
        trainer.optimizer.param_groups[0]["weight_decay"] = 0.0
        before = [p.detach().clone() for p in trainer.parameters]
        trainer.step(make_batch(0), 0)
        moved = math.sqrt(
            sum(float((p.detach() - b).pow(2).sum()) for p, b in zip(trainer.parameters, before, strict=True))
        )
        assert moved == pytest.approx(expected, rel=1e-3) if expected else moved > 1e-2


def test_each_step_takes_the_learning_rate_of_the_schedule(tiny):
    trainer = make_trainer(tiny, lr=0.3)
    for step in (0, 2):
        trainer.step(make_batch(0), step)
        assert trainer.optimizer.param_groups[0]["lr"] == 0.3 / (1 + step)


def test_randomness_of_a_step_is_of_its_number_alone(tiny):
    first, second, other, later = make_trainer(tiny), make_trainer(tiny), make_trainer(tiny, seed=1), make_trainer(tiny)
    for trainer in (first, second, other, later):
        trainer.lr_at = lambda step: 0.1
    first.step(make_batch(0), 7)
    torch.rand(100)
    second.step(make_batch(0), 7)
    other.step(make_batch(0), 7)
    later.step(make_batch(0), 8)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))
    assert not same(weights(first), weights(later))


def test_loss_that_is_not_finite_stops_before_the_update(tiny):
    trainer = make_trainer(tiny)
    trainer.step(make_batch(0), 0)
    before = [p.detach().clone() for p in trainer.parameters]
    broken = make_batch(3)
    broken.inputs[2] = math.nan
    with pytest.raises(NotFinite, match="loss is nan at step 1") as caught:
        trainer.step(broken, 1)
    assert all(torch.equal(p, b) for p, b in zip(trainer.parameters, before, strict=True))
    assert caught.value.step == 1 and caught.value.ids == tuple(range(300, 306))


def test_gradient_that_is_not_finite_stops_too(tiny):
    trainer = make_trainer(tiny)
    trainer.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFinite, match="gradient is not finite"):
        trainer.step(make_batch(0), 0)


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_deferred_check_takes_no_step_from_the_bad_one_on(tiny, optim):
    trainer, reference = (make_trainer(tiny, optim=optim, deferred=deferred) for deferred in (True, False))
    for step in range(2):
        trainer.step(make_batch(step), step)
        reference.step(make_batch(step), step)
    broken = make_batch(2)
    broken.inputs[:] = math.inf
    trainer.step(broken, 2)
    trainer.step(make_batch(3), 3)
    assert all(torch.equal(p, r) for p, r in zip(trainer.parameters, reference.parameters, strict=True))
    with pytest.raises(NotFinite) as caught:
        trainer.check()
    assert caught.value.step == 2 and caught.value.ids == tuple(range(200, 206))


def test_frozen_part_keeps_its_statistics_and_its_mode(tiny):
    tiny.conv.requires_grad_(False)
    tiny.bn.requires_grad_(False)
    trainer = make_trainer(tiny)
    before = weights(trainer)
    trainer.step(make_batch(0), 0)
    after = weights(trainer)
    assert {key for key in after if not torch.equal(before[key], after[key])} == {"head.weight", "head.bias"}
    assert trainer.model.training and trainer.model.drop.training and not trainer.model.bn.training
    trainer.model.requires_grad_(True)
    set_training_mode(trainer.model)
    assert trainer.model.bn.training


def test_average_is_what_is_evaluated(tiny):
    trainer = make_trainer(tiny, average=0.9)
    start = trainer.model.head.weight.detach().clone()
    trainer.step(make_batch(0), 0)
    expected = 0.9 * start + 0.1 * trainer.model.head.weight
    torch.testing.assert_close(trainer.evaluated.head.weight, expected)
    assert make_trainer(tiny).evaluated is not trainer.evaluated


def test_rows_and_the_best_epoch(tiny):
    state = State()
    epochs = list(fit(make_trainer(tiny), FakeLoader(), score_of(1.0, 3.0, 3.0), state, epochs=3))
    assert [epoch.is_best for epoch in epochs] == [True, True, False]
    assert (state.best_epoch, state.best_score) == (2, 3.0)
    assert [epoch.row["step"] for epoch in epochs] == [3, 6, 9]
    assert epochs[1].row["lr"] == 0.1 / 6
    assert (state.epoch, state.batch, state.step, state.images) == (3, 0, 9, 0)
    assert all(
        epoch.row["train_loss"] > 0 and epoch.row["score"] == epoch.row["points"] == epoch.report.score
        for epoch in epochs
    )


def test_of_equal_scores_the_lower_loss_is_the_best(tiny):
    state = State()
    validate = score_of(3.0, 3.0, 3.0, 2.0, 3.0, losses=[1.0, 0.5, 0.7, 0.1, 0.5])
    epochs = list(fit(make_trainer(tiny), FakeLoader(), validate, state, epochs=5))
    assert [epoch.is_best for epoch in epochs] == [True, True, False, False, False]
    assert (state.best_epoch, state.best_score, state.best_loss) == (2, 3.0, 0.5)
    # the state of an earlier version has no loss to compare with: its best epoch stays the best
    older = State(epoch=2, best_epoch=2, best_score=3.0)
    (epoch,) = fit(make_trainer(tiny), FakeLoader(), score_of(3.0, losses=[0.1]), older, epochs=3)
    assert not epoch.is_best


def test_an_epoch_without_a_step_is_an_error(tiny):
    empty = Batch(torch.empty(0, 3, 0, 0), torch.empty(0).long(), torch.empty(0).long(), ((7, "empty"),))
    for batches in ([empty, empty], [make_batch(0, size=1)]):
        with pytest.raises(OvertoneError, match="no step could be taken in epoch 1, so nothing was trained"):
            list(fit(make_trainer(tiny), FakeLoader(batches), score_of(1.0), State(), epochs=1))


def test_patience_counts_epochs_without_a_better_score(tiny):
    state = State()
    scores = score_of(1.0, 2.0, 1.5, 2.0, 9.0)
    assert len(list(fit(make_trainer(tiny), FakeLoader(), scores, state, epochs=9, patience=2))) == 4
    assert list(fit(make_trainer(tiny), FakeLoader(), scores, state, epochs=9, patience=2)) == []


def test_max_steps_ends_within_an_epoch(tiny):
    state = State()
    epochs = list(fit(make_trainer(tiny), FakeLoader(), score_of(1.0, 2.0), state, epochs=9, max_steps=4))
    assert len(epochs) == 2 and (state.epoch, state.batch, state.step) == (1, 1, 4)


class StopAt(Watch):
    def __init__(self, checks):
        self.left = checks

    def stopped(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("stop_at", [0, 1, 4])
def test_interrupted_training_is_resumed_as_if_nothing_had_been(tiny, stop_at):
    straight, broken = make_trainer(tiny), make_trainer(tiny)
    rows = [epoch.row["train_loss"] for epoch in fit(straight, FakeLoader(), score_of(1, 2), State(), epochs=2)]
    state, scores, losses = State(), score_of(1, 2), []
    with pytest.raises(Interrupted):
        losses += [
            e.row["train_loss"] for e in fit(broken, FakeLoader(), scores, state, epochs=2, watch=StopAt(stop_at))
        ]
    torch.rand(3)
    losses += [e.row["train_loss"] for e in fit(broken, FakeLoader(), scores, state, epochs=2)]
    assert same(weights(straight), weights(broken))
    assert losses[-1] == rows[-1]


def test_lone_image_of_the_last_batch_is_left_for_another_epoch(tiny):
    state = State()
    trainer = make_trainer(tiny)
    loader = FakeLoader([make_batch(0), make_batch(1, size=1)])
    (epoch,) = fit(trainer, loader, score_of(1.0), state, epochs=1)
    assert state.step == 2 and epoch.row["train_loss"] == pytest.approx(trainer.loss_sum() / BATCH)


def test_unreadable_images_are_reported_and_their_batch_is_smaller(tiny):
    said = []
    watch = Watch()
    watch.bad = said.extend
    empty = Batch(torch.empty(0, 3, 0, 0), torch.empty(0).long(), torch.empty(0).long(), ((7, "empty"), (8, "cut")))
    state = State()
    list(fit(make_trainer(tiny), FakeLoader([make_batch(0), empty]), score_of(1.0), state, epochs=1, watch=watch))
    assert said == [(7, "empty"), (8, "cut")] and state.step == 2


def test_evaluation_counts_every_image_once_and_names_the_bad_ones(tiny):
    batches = [make_batch(0), make_batch(1, size=2, bad=((5, "cut"),))]
    seen = []
    report = evaluate(task_of("abc"), tiny, FakeLoader(batches), CPU, seen.append)
    assert (report.num_used, report.num_expected, report.bad) == (8, 9, ("5.png",))
    assert seen == [6, 9]
    tiny.eval()
    expected = sum(int((tiny(b.inputs).argmax(1) == b.targets).sum()) for b in batches)
    assert report.correct_top1 == expected


def test_evaluation_of_nothing_readable_is_an_error(tiny):
    empty = Batch(torch.empty(0, 3, 0, 0), torch.empty(0).long(), torch.empty(0).long(), ((7, "empty"),))
    with pytest.raises(OvertoneError, match=r"none of the 1 images could be read \(7.png"):
        evaluate(task_of("abc"), tiny, FakeLoader([empty]), CPU)


def test_placement_on_the_cpu():
    placement = place(Run(device="cpu"))
    assert placement.autocast_dtype is None and str(placement) == "cpu, float32, channels last"
    images = placement.inputs(torch.zeros(2, 3, 4, 4))
    assert images.is_contiguous(memory_format=torch.channels_last)
    bfloat16 = place(Run(device="cpu", precision="bfloat16", channels_last=False))
    with bfloat16.autocast():
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "message"), [("warp", "not a device"), ("cuda:99", "not there"), ("meta", "support")]
)
def test_devices_that_are_not_there(device, message):
    with pytest.raises(OvertoneError, match=message):
        place(Run(device=device))


def test_training_in_bfloat16_computes_the_loss_in_float32(tiny):
    trainer = make_trainer(tiny)
    trainer.placement = Placement(torch.device("cpu"), torch.bfloat16)
    kinds = []
    loss = trainer.task.loss

    def watched(network, batch):
        outputs = network(batch.inputs)
        kinds.append(outputs.dtype)
        return loss(lambda inputs: outputs, batch)

    trainer.task.loss = watched
    trainer.step(make_batch(0), 0)
    assert kinds == [torch.float32] and all(p.dtype == torch.float32 for p in trainer.parameters)
