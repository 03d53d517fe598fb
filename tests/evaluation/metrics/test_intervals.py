import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trivox.evaluation.metrics.class_intervals import (
    area_error,
    bounded_interval,
    difference_interval,
    loss_interval,
)
from trivox.evaluation.metrics.intervals import (
    ANYWHERE,
    LOG_T,
    LOGIT_T,
    POSITIVE,
    SHARE,
    WILSON,
    Support,
    hall_interval,
    logit_interval,
    mean_interval,
    median_interval,
    wilson_interval,
)

SUPPORTS = {"share": SHARE, "positive": POSITIVE, "any": ANYWHERE}
SHARES = st.lists(
    st.floats(0, 1).map(lambda x: round(x, 3)), min_size=2, max_size=40
).filter(lambda values: len(set(values)) > 1)
law = settings(max_examples=80, deadline=None, derandomize=True)


@law
@given(values=SHARES, support=st.sampled_from([*SUPPORTS.values(), Support(-1, 1)]))
def test_an_interval_holds_the_mean_and_stays_where_values_can_be(values, support):
    numbers = np.array(values)
    low, high, _ = mean_interval(numbers, support)
    assert support.low <= low <= numbers.mean() <= high <= support.high
    assert low < high


@law
@given(values=SHARES, factor=st.floats(0.01, 100))
def test_units_do_not_matter(values, factor):
    numbers = np.array(values)
    for support in (POSITIVE, ANYWHERE):
        low, high, method = mean_interval(numbers, support)
        scaled = mean_interval(numbers * factor, support)
        assert scaled.method == method
        assert scaled[:2] == pytest.approx((low * factor, high * factor))


@law
@given(values=SHARES)
def test_shares_and_what_is_left_of_them_have_mirrored_intervals(values):
    numbers = np.array(values)
    low, high, _ = mean_interval(numbers, SHARE)
    other = mean_interval(1 - numbers, SHARE)
    assert other[:2] == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_student_t_is_that_of_scipy():
    values = np.random.default_rng(0).normal(5, 2, 9)
    expected = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert mean_interval(values)[:2] == pytest.approx(expected)


def test_halls_interval_inverts_his_transformation():
    values = np.random.default_rng(1).lognormal(0, 0.8, 15)
    skewness = (((values - values.mean()) / values.std(ddof=1)) ** 3).sum() * 15
    skewness /= 14 * 13
    quantile = stats.t.ppf(0.975, 14)
    for edge, sign in zip(hall_interval(values), (1, -1), strict=True):
        t = (values.mean() - edge) / stats.sem(values)
        cubic = (
            t
            + skewness * t**2 / (3 * 15**0.5)
            + skewness**2 * t**3 / (27 * 15)
            + skewness / (6 * 15**0.5)
        )
        assert cubic == pytest.approx(sign * quantile)
    even = np.array([-2.0, -1, 0, 1, 2, 3, -3, 0.5, -0.5])
    plain = stats.t.interval(0.95, 8, 0, stats.sem(even))
    assert hall_interval(even) == pytest.approx(plain)


def test_wilson_is_that_of_scipy():
    for hits, cases in ((0, 5), (3, 5), (5, 5), (19, 40), (199, 200)):
        expected = stats.binomtest(hits, cases).proportion_ci(method="wilson")
        low, high, _ = wilson_interval(hits, cases)
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_interval_of_a_median_holds_it_whatever_the_distribution():
    # By the binomial distribution: between the order statistics k and n + 1 - k.
    for cases in (6, 9, 20, 101):
        low, high = median_interval(np.arange(1.0, cases + 1))
        assert low + high == cases + 1
        inside = 1 - 2 * stats.binom.cdf(low - 1, cases, 0.5)
        assert inside >= 0.95
        assert 1 - 2 * stats.binom.cdf(low, cases, 0.5) < 0.95
    assert median_interval(np.arange(5.0)) is None


@pytest.mark.parametrize(
    ("draw", "support", "least"),
    [
        (lambda rng, shape: rng.beta(72, 8, shape), SHARE, 0.93),
        (lambda rng, shape: rng.beta(4, 1, shape), SHARE, 0.92),
        (lambda rng, shape: rng.lognormal(1, 0.4, shape), POSITIVE, 0.92),
        (lambda rng, shape: rng.standard_t(3, shape), ANYWHERE, 0.93),
    ],
)
@pytest.mark.parametrize("cases", [5, 12, 40])
def test_intervals_cover_as_often_as_they_say(draw, support, least, cases):
    rng = np.random.default_rng(cases)
    truth = draw(rng, 400_000).mean()
    covered = []
    for values in draw(rng, (700, cases)):
        low, high, _ = mean_interval(values, support)
        covered.append(low <= truth <= high)
    assert least <= np.mean(covered) <= 0.98


def test_a_score_at_its_bound_has_the_interval_of_as_many_right_cases():
    low, high, method = logit_interval(1.0, 0.0, 20)
    assert (low, high) == wilson_interval(20, 20)[:2]
    assert method == WILSON
    worst = bounded_interval("mcc", -1.0, np.full(9, -1.0), 20)
    assert worst[:2] == pytest.approx((-1, 1 - 2 * low))


def test_the_error_of_an_area_is_that_of_delong():
    rng = np.random.default_rng(2)
    truth = np.repeat([0, 1], [12, 7])
    score = rng.normal(truth, 1).round(1)  # with ties
    chance = 1 / (1 + np.exp(-score))
    rows = np.stack([1 - chance, chance], axis=1)
    above = (score[12:, None] > score[None, :12]) + 0.5 * (
        score[12:, None] == score[None, :12]
    )
    expected = above.mean(1).var(ddof=1) / 7 + above.mean(0).var(ddof=1) / 12
    assert area_error(truth, rows, (1,)) == pytest.approx(expected**0.5)
    assert area_error(truth, rows, (0, 1)) == pytest.approx(expected**0.5)


def test_one_case_of_a_class_adds_the_most_that_it_can_to_the_error_of_an_area():
    chance = np.array([0.1, 0.2, 0.3, 0.6, 0.4])
    rows = np.stack([1 - chance, chance], axis=1)
    truth = np.array([0, 0, 0, 0, 1])
    below = np.array([1, 1, 1, 0])
    expected = 0.75 * 0.25 + below.var(ddof=1) / 4
    assert area_error(truth, rows, (1,)) == pytest.approx(expected**0.5)


@pytest.mark.parametrize(("name", "method"), [("brier", LOGIT_T), ("log_loss", LOG_T)])
def test_losses_lie_where_they_can(name, method):
    chance = np.array([0.9, 0.8, 0.6, 0.95, 0.4])
    rows = np.stack([1 - chance, chance], axis=1)
    low, high, by = loss_interval(name, np.ones(5, int), rows)
    assert by == method
    mean = {"brier": 2 * (1 - chance) ** 2, "log_loss": -np.log(chance)}[name].mean()
    assert 0 < low < mean < high < 2


def test_a_difference_has_an_interval_on_both_sides():
    draws = np.array([0.1, 0.3, np.nan])
    low, high, _ = difference_interval(0.2, draws, 12)
    half = stats.t.ppf(0.975, 11) * 0.1
    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half))
    assert difference_interval(0.2, np.full(3, 0.2), 12) is None
    assert difference_interval(0.2, np.full(3, np.nan), 12) is None
