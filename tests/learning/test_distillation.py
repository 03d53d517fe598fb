"""Laws of learning from soft answers."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from loss_cases import few
from trivox.learning.losses.distillation import (
    soft_answers,
    soft_divergence,
    soft_mismatch,
)

temperatures = st.sampled_from([0.5, 1.0, 2.0, 7.0])
kinds = st.booleans()
sizes = st.tuples(*[st.integers(1, 4)] * 5)
several = st.tuples(
    st.integers(1, 3), st.integers(2, 4), *[st.integers(1, 4)] * 3
)  # two channels at least: a class beside the background


def drawn(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=dtype)


def mismatch(student, teacher, temperature=2.0, exclusive=True):
    how = {"temperature": temperature, "exclusive": exclusive}
    return soft_mismatch(student, soft_answers([teacher], **how), **how)


def distance(student, teacher, temperature=2.0, exclusive=True):
    how = {"temperature": temperature, "exclusive": exclusive}
    return soft_divergence(student, soft_answers([teacher], **how), **how)


PARTS = {"divergence": distance, "mismatch": mismatch}
each_part = pytest.mark.parametrize("part", PARTS)


def test_an_overlap_reckoned_by_hand():
    # sigmoids 0.9 and 0.5 against 0.1 and 0.5
    high, low = math.log(9.0), -math.log(9.0)
    student = torch.tensor([high, 0.0], dtype=torch.float64).view(1, 1, 1, 1, 2)
    teacher = torch.tensor([low, 0.0], dtype=torch.float64).view(1, 1, 1, 1, 2)
    value = mismatch(student, teacher, 1.0, exclusive=False)
    expected = 0.8**2 / (0.81 + 0.25 + 0.01 + 0.25)
    assert float(value) == pytest.approx(expected, rel=1e-4)
    # of two classes the second alone counts, by its share of both
    both = [torch.cat([torch.zeros_like(x), x], 1) for x in (student, teacher)]
    assert float(mismatch(*both, 1.0)) == pytest.approx(expected, rel=1e-4)


def test_a_voxel_reckoned_by_hand():
    teacher = torch.tensor([0.0, math.log(9.0)], dtype=torch.float64).view(
        1, 2, 1, 1, 1
    )
    student = torch.zeros_like(teacher)
    # T = 1: 0.1 log(0.1 / 0.5) + 0.9 log(0.9 / 0.5)
    expected = 0.1 * math.log(0.2) + 0.9 * math.log(1.8)
    assert float(distance(student, teacher, 1.0)) == pytest.approx(expected)
    # T = 2 turns 1 : 9 into 1 : 3, and the result counts fourfold
    softer = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert float(distance(student, teacher, 2.0)) == pytest.approx(4 * softer)
    # a region: 0.9 inside and 0.1 outside against one half
    region = teacher[:, 1:]
    value = distance(torch.zeros_like(region), region, 1.0, exclusive=False)
    assert float(value) == pytest.approx(expected)


@few
@given(sizes, temperatures, st.integers(0, 99))
def test_of_classes_it_is_what_torch_says(shape, temperature, seed):
    student, teacher = drawn(shape, seed), drawn(shape, seed + 100)
    each = F.kl_div(
        (student / temperature).log_softmax(1),
        (teacher / temperature).softmax(1),
        reduction="none",
    )
    expected = temperature**2 * each.sum(1).mean()
    assert torch.allclose(distance(student, teacher, temperature), expected)


@few
@given(sizes, temperatures, st.integers(0, 99))
def test_of_a_region_it_is_that_of_two_classes(shape, temperature, seed):
    student, teacher = drawn(shape, seed), drawn(shape, seed + 100)
    both = [
        torch.stack([torch.zeros_like(x), x], 1).flatten(0, 0).movedim(2, 0)
        for x in (student, teacher)
    ]
    as_classes = [distance(*pair, temperature) for pair in zip(*both, strict=True)]
    value = distance(student, teacher, temperature, exclusive=False)
    assert torch.allclose(value, torch.stack(as_classes).mean())


@each_part
@few
@given(several, temperatures, kinds, st.integers(0, 99))
def test_it_is_never_negative_and_pulls_nowhere_at_the_teacher(
    part, shape, temperature, exclusive, seed
):
    student, teacher = drawn(shape, seed), drawn(shape, seed + 100)
    assert float(PARTS[part](student, teacher, temperature, exclusive)) >= -1e-12
    same = teacher.clone().requires_grad_()
    value = PARTS[part](same, teacher, temperature, exclusive)
    (gradient,) = torch.autograd.grad(value, same)
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    assert float(gradient.abs().max()) < 1e-12


@each_part
@few
@given(several, temperatures, kinds, st.integers(0, 99))
def test_a_batch_is_the_mean_of_its_samples(part, shape, temperature, exclusive, seed):
    student, teacher = drawn(shape, seed), drawn(shape, seed + 100)
    alone = [
        PARTS[part](student[i : i + 1], teacher[i : i + 1], temperature, exclusive)
        for i in range(len(student))
    ]
    whole = PARTS[part](student, teacher, temperature, exclusive)
    assert torch.allclose(whole, torch.stack(alone).mean())


@few
@given(sizes, kinds, st.integers(0, 99))
def test_several_networks_answer_with_their_mean_probability(shape, exclusive, seed):
    voters = [drawn(shape, seed + number) for number in range(3)]
    how = {"temperature": 3.0, "exclusive": exclusive}
    each = [soft_answers([logits], **how) for logits in voters]
    assert torch.allclose(soft_answers(iter(voters), **how), torch.stack(each).mean(0))


@each_part
@pytest.mark.parametrize("exclusive", [True, False])
def test_the_gradient_is_that_of_finite_differences(part, exclusive):
    student, teacher = drawn((2, 2, 2, 1, 3), 1), drawn((2, 2, 2, 1, 3), 2)
    assert torch.autograd.gradcheck(
        lambda x: PARTS[part](x, teacher, 2.0, exclusive), (student.requires_grad_(),)
    )


@each_part
@pytest.mark.parametrize("exclusive", [True, False])
def test_teachers_that_are_certain_give_numbers(part, exclusive):
    teacher = 1e4 * drawn((1, 3, 2, 2, 2), 3, torch.float32).sign()
    for student in (teacher.clone(), -teacher, teacher.bfloat16()):
        value = PARTS[part](student, teacher, 1.0, exclusive)
        assert value.isfinite()
        assert value.dtype == torch.float32
