"""A teacher: its share of the loss, what it sees, and which models may be one."""

import math

import pytest
import torch
from tiny_training import loss_of, task_of
from torch import nn

from overtone import zoo
from overtone.config import Augment, Distill, Preprocess, Recipe, Train
from overtone.data.pipeline import Batch
from overtone.engine.placement import Placement
from overtone.engine.teaching import load_teacher
from overtone.errors import OvertoneError
from overtone.tasks.classification.distillation import Teacher, distillation_loss

CPU = Placement(torch.device("cpu"))
STUDENT = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
TAUGHT = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 4.0]])
TARGETS = torch.tensor([0, 1])


def probabilities(row, temperature=1.0):
    exponentials = [math.exp(value / temperature) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def divergence(teacher, student, temperature):
    pairs = zip(probabilities(teacher, temperature), probabilities(student, temperature), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def cross_entropy(row, target):
    return -math.log(probabilities(row)[target])


class Fixed(nn.Module):
    """Gives the same outputs for any images, and keeps them."""

    def __init__(self, outputs):
        super().__init__()
        self.weight = nn.Parameter(outputs.clone())
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return self.weight[: len(images)]


def task_with(distill, outputs=TAUGHT, **recipe):
    net = Fixed(outputs)
    return task_of("abc", Recipe(distill=distill, **recipe), teacher=Teacher(net, CPU.autocast)), net


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_soft_loss_by_hand(temperature):
    loss = distillation_loss(STUDENT, TAUGHT, Distill(temperature=temperature))
    pairs = zip(TAUGHT.tolist(), STUDENT.tolist(), strict=True)
    expected = temperature**2 * sum(divergence(teacher, student, temperature) for teacher, student in pairs)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_soft_loss_in_figures():
    # teacher (1/2, 1/2), student (3/4, 1/4): ln 2 - (ln 3) / 2 = 0.143841
    student, teacher = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    assert distillation_loss(student, teacher, Distill()).item() == pytest.approx(0.143841, abs=1e-6)


def test_hard_loss_is_cross_entropy_with_the_teachers_choice():
    loss = distillation_loss(STUDENT, TAUGHT + torch.tensor([0.0, 0.1, 0.0]), Distill(hard=True, temperature=3.0))
    expected = cross_entropy(STUDENT[0].tolist(), 1) + cross_entropy(STUDENT[1].tolist(), 2)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_share_of_the_teacher(weight):
    task, _ = task_with(Distill(teacher="x", weight=weight, temperature=2.0), train=Train(label_smoothing=0.1))
    plain = loss_of(task_of("abc", Recipe(train=Train(label_smoothing=0.1))), STUDENT, TARGETS)
    soft = distillation_loss(STUDENT, TAUGHT, Distill(temperature=2.0))
    loss = loss_of(task, STUDENT, TARGETS)
    assert loss.item() == pytest.approx(((1 - weight) * plain + weight * soft).item(), rel=1e-6)


def test_a_student_taught_by_itself_learns_nothing_from_it():
    task, _ = task_with(Distill(teacher="x", weight=1.0, temperature=3.0), outputs=STUDENT)
    outputs = STUDENT.clone().requires_grad_()
    loss = loss_of(task, outputs, TARGETS)
    loss.backward()
    assert abs(loss.item()) < 1e-6 and outputs.grad.abs().max() < 1e-6


def test_the_teacher_sees_the_mixed_images_in_eval_mode_without_gradient():
    task, net = task_with(Distill(teacher="x"), augment=Augment(mixup=0.8))
    assert not net.training and not net.weight.requires_grad
    batch = task.prepare(Batch(torch.randn(2, 3, 4, 4), TARGETS, torch.arange(2)), (0, 0))
    outputs = STUDENT.clone().requires_grad_()
    loss_of(task, outputs, batch.targets, batch.inputs).backward()
    assert (
        batch.targets.ndim == 2 and net.seen == [batch.inputs] and net.weight.grad is None and outputs.grad is not None
    )


def test_a_recipe_and_its_teacher_belong_together():
    teacher = Teacher(Fixed(TAUGHT), CPU.autocast)
    for recipe, given in ((Recipe(distill=Distill(teacher="x")), None), (Recipe(), teacher)):
        with pytest.raises(ValueError, match="needs its teacher"):
            task_of("abc", recipe, teacher=given)


# Which models may be a teacher


@pytest.fixture
def known(monkeypatch):
    """`zoo.load_model` gives a teacher of these classes and of this preprocessing."""

    def offer(classes, preprocess=Preprocess(), **more):  # noqa: B008 - frozen
        net = Fixed(TAUGHT)
        net.num_classes = 3
        loaded = zoo.LoadedModel(net, "some_net", classes, preprocess, "somewhere", **more)
        monkeypatch.setattr(zoo, "load_model", lambda spec: loaded)
        return net

    return offer


def load(classes="abc", **distill):
    return load_teacher(Distill(teacher="runs/big", **distill), tuple(classes), Preprocess(), CPU)


def test_a_teacher_of_the_same_classes(known):
    net = known(("a", "b", "c"))
    teacher = load()
    assert teacher is not None and teacher.model is net
    assert load_teacher(Distill(), "abc", Preprocess(), CPU) is None


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("a", "c", "b"), "in another order: output 1 is c there and b here"),
        (("a", "b", "d"), "lacks c; it has besides d"),
        (("a", "b"), "lacks c; the"),
        (None, "has no names for its 3 classes"),
    ],
)
def test_other_classes_stop_before_the_start(known, classes, says):
    known(classes)
    with pytest.raises(OvertoneError, match=f"distill.teacher runs/big .*{says}"):
        load()


def test_an_architecture_is_no_teacher(known):
    known(("a", "b", "c"), trained=False)
    with pytest.raises(OvertoneError, match="an architecture without weights"):
        load()


def test_other_preprocessing_is_said(known):
    known(("a", "b", "c"), Preprocess(size=160, mean=(0.5, 0.5, 0.5), interpolation="bicubic"))
    with pytest.warns(UserWarning, match=r"sees the student's images, but was trained with mean \(0.5.*, size 160"):
        load()
