"""How features, settings and kinds are chosen, and what becomes of awkward rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import f1_score, roc_auc_score

from classifier_toys import CLASSES, answers_to, fit, softmax, toy
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, RecipeError
from trivox.inference.classes.case_masks import case_masks
from trivox.inference.classes.features import handmade_features
from trivox.learning.case_classifier.fitting import best_single_feature
from trivox.learning.case_classifier.rows import case_rows, scaling_of, telling

# -- fitting and choosing --------------------------------------------------------------


def test_what_was_learnt_holds_for_new_cases():
    names = toy()[2]
    fitted = fit(*toy(seed=0, shift=3), kinds=("lda", "logreg", "mlp"))
    rows, truth, _ = toy(seed=1, shift=3)
    answers = fitted.classifier.probabilities(dict.fromkeys(names, 0.0))
    assert answers.shape == (1, 3)
    assert (answers_to(fitted.classifier, rows, names).argmax(1) == truth).mean() > 0.85


@pytest.mark.usefixtures("whole_subsets")
def test_equal_seeds_give_equal_classifiers():
    first, second = (
        fit(*toy(), kinds=("lda", "logreg", "mlp"), seed=3) for _ in range(2)
    )
    np.testing.assert_array_equal(first.resubstitution, second.resubstitution)
    np.testing.assert_array_equal(first.out_of_fold, second.out_of_fold)
    assert first.candidates == second.candidates


@pytest.mark.usefixtures("whole_subsets")
def test_out_of_fold_answers_to_noise_are_guesses_while_those_to_learnt_rows_are_not():
    rows, truth, names = toy(features=200, shift=0)
    fitted = fit(rows, truth, names, kinds=("logreg",))
    assert roc_auc_score(truth, fitted.out_of_fold, multi_class="ovr") < 0.65
    assert roc_auc_score(truth, fitted.resubstitution, multi_class="ovr") > 0.95


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_no_group_is_on_both_sides_of_a_fold(seed):
    rows, truth, names = toy(seed)
    groups = [f"p{i}" for i in np.random.default_rng(seed).integers(0, 25, len(truth))]
    parts, _ = case_rows(rows, truth, names, CLASSES, groups, None, "balanced", seed, 5)
    folds = {group: set() for group in groups}
    for group, fold in zip(groups, parts.fold, strict=True):
        folds[group].add(int(fold))
    assert all(len(of_group) == 1 for of_group in folds.values())
    assert len(np.unique(parts.fold)) == 5


@pytest.mark.usefixtures("whole_subsets")
def test_repeated_rows_of_a_patient_do_not_flatter_when_they_are_grouped():
    rows, truth, names = toy(features=60, shift=0)
    twice = np.repeat(rows, 2, axis=0)
    groups = np.repeat([f"p{i}" for i in range(len(truth))], 2)
    losses = {
        known: fit(
            twice, np.repeat(truth, 2), names, groups=groups if known else None
        ).candidates[0]["log_loss"]
        for known in (True, False)
    }
    assert losses[True] > 1.05  # three equally likely classes: 1.10
    assert losses[False] < 0.9


@pytest.mark.usefixtures("whole_subsets")
def test_the_informative_subset_is_taken_and_the_others_are_listed():
    rows, truth, names = toy(features=40, shift=3)
    fitted = fit(
        rows,
        truth,
        names,
        subsets={"noise": names[20:], "signal": names[:3]},
        kinds=("lda", "logreg"),
    )
    assert fitted.candidates[0]["subset"] == "signal"
    assert fitted.classifier.names == tuple(names[:3])
    assert {(row["kind"], row["subset"]) for row in fitted.candidates} == {
        ("lda", "noise"),
        ("lda", "signal"),
        ("logreg", "noise"),
        ("logreg", "signal"),
        ("lda + logreg", "noise"),
        ("lda + logreg", "signal"),
    }


def test_where_one_feature_tells_the_classes_hundreds_are_left_out():
    rows, truth, names = toy(features=300, shift=4)
    fitted = fit(rows, truth, names)
    assert "f0" in fitted.classifier.names
    assert len(fitted.classifier.names) <= 4
    assert len(fitted.candidates) > 1
    fresh, answers, _ = toy(seed=1, features=300, shift=4)
    assert (
        answers_to(fitted.classifier, fresh, names).argmax(1) == answers
    ).mean() > 0.9


def test_choosing_the_best_few_of_many_does_not_flatter():
    """Features that happen to fit all rows would, were they chosen before the folds are
    held out.
    """
    rows, truth, names = toy(features=600, shift=0)
    fitted = fit(rows, truth, names)
    few = [row["log_loss"] for row in fitted.candidates if "best" in row["subset"]]
    assert len(few) == 3
    assert min(few) > 1.0  # three equally likely classes: 1.10


@pytest.mark.usefixtures("whole_subsets")
def test_several_kinds_answer_with_the_mean_of_their_calibrated_logits():
    rows, truth, names = toy(shift=0.8)
    kinds = ("lda", "logreg", "mlp")
    alone = [
        fit(rows, truth, names, kinds=(kind,)).classifier.logits(rows) for kind in kinds
    ]
    together = fit(rows, truth, names, kinds=kinds).classifier
    assert together.kind == "lda + logreg + mlp"
    np.testing.assert_allclose(
        together.logits(rows), np.mean(alone, axis=0) / together.temperature, atol=1e-8
    )


def test_balanced_gives_a_rare_class_its_say_and_none_leaves_frequencies():
    rows, truth, names = toy(counts=(100, 20, 20), shift=0)
    share = {
        how: fit(rows, truth, names, imbalance=how).out_of_fold.mean(0)
        for how in ("balanced", "none")
    }
    np.testing.assert_allclose(share["balanced"], 1 / 3, atol=0.06)
    np.testing.assert_allclose(share["none"], [100 / 140, 20 / 140, 20 / 140], atol=0.1)


@pytest.mark.usefixtures("whole_subsets")
def test_the_temperature_makes_overconfident_answers_honest():
    rows, truth, names = toy(features=150, shift=1.5)
    fitted = fit(rows, truth, names)
    right = (fitted.out_of_fold.argmax(1) == truth).mean()
    assert fitted.classifier.temperature > 1.5
    assert abs(fitted.out_of_fold.max(1).mean() - right) < 0.12
    hot = softmax(np.log(fitted.out_of_fold) * fitted.classifier.temperature)
    assert hot.max(1).mean() - right > 0.15  # without it


# -- awkward rows ----------------------------------------------------------------------


@pytest.mark.usefixtures("whole_subsets")
def test_columns_that_say_nothing_are_left_out():
    rows, truth, names = toy(features=6)
    rows[:, 2] = np.nan
    rows[:, 3] = 7.1
    rows[:, 4] = np.where(rows[:, 4] > 0, np.inf, np.nan)
    assert fit(rows, truth, names).classifier.names == ("f0", "f1", "f5")


@pytest.mark.usefixtures("whole_subsets")
def test_what_is_not_known_counts_as_the_median():
    rows, truth, names = toy()
    rows[::7, 0] = np.nan
    classifier = fit(rows, truth, names).classifier
    case = np.array(rows[:1])
    filled = np.array(rows[:1])
    case[0, 0] = np.nan
    filled[0, 0] = np.nanmedian(rows[:, 0])
    np.testing.assert_array_equal(
        classifier.probabilities(case), classifier.probabilities(filled)
    )
    assert np.isfinite(classifier.probabilities(np.full((1, 8), np.nan))).all()


@pytest.mark.usefixtures("whole_subsets")
def test_one_absurd_value_counts_as_four_standard_deviations():
    rows, truth, names = toy()
    classifier = fit(rows, truth, names).classifier
    cases = np.tile(rows[0], (3, 1))
    cases[:, 1] = classifier.mean[1] + np.array([4, 40, 1e9]) * classifier.scale[1]
    answers = classifier.probabilities(cases)
    np.testing.assert_allclose(answers[1:], answers[:1].repeat(2, 0), atol=1e-12)


def test_filling_in_is_learnt_from_the_training_rows_alone():
    fill, mean, scale = scaling_of(
        np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan], [8.0, np.nan]])
    )
    np.testing.assert_array_equal(fill, [3, 0])
    assert mean[0] == pytest.approx((1 + 3 + 3 + 8) / 4)
    assert scale[1] == 1


@pytest.mark.usefixtures("whole_subsets")
@pytest.mark.parametrize(
    ("kinds", "rare"),
    [(("lda",), 1), (("logreg",), 2), (("mlp",), 3), (("lda", "logreg", "mlp"), 1)],
)
def test_a_class_with_fewer_cases_than_folds_still_has_its_say(kinds, rare):
    rows, truth, names = toy(counts=(12, 12, rare), shift=6)
    fitted = fit(rows, truth, names, kinds=kinds)
    assert np.isfinite(fitted.out_of_fold).all()
    assert (fitted.resubstitution.argmax(1) == truth)[truth == 2].all()


def test_a_class_without_cases_is_never_answered_and_keeps_its_place():
    rows, truth, names = toy(counts=(20, 25), shift=3)
    fitted = fit(rows, truth * 2, names, kinds=("lda", "mlp"))
    for answers in (fitted.out_of_fold, fitted.resubstitution):
        assert answers[:, 1].max() < 1e-6
        np.testing.assert_allclose(answers.sum(1), 1)
        assert set(answers.argmax(1)) == {0, 2}


@pytest.mark.usefixtures("whole_subsets")
def test_far_more_features_than_cases_are_no_obstacle():
    rows, truth, names = toy(counts=(10, 10, 10), features=400, shift=8)
    fitted = fit(rows, truth, names, kinds=("lda", "logreg", "mlp"))
    assert np.isfinite(fitted.out_of_fold).all()


def test_rows_that_nothing_can_be_learnt_from_are_refused():
    rows, truth, names = toy()
    with pytest.raises(DataError, match="one class"):
        fit(rows, np.ones_like(truth), names)
    with pytest.raises(DataError, match="known class"):
        fit(rows, np.where(truth == 0, -1, truth), names)
    with pytest.raises(DataError, match="no feature differs"):
        fit(np.ones_like(rows), truth, names)
    with pytest.raises(DataError, match="no feature differs"):
        best_single_feature(
            np.full_like(rows, np.nan), truth, names=names, class_names=CLASSES
        )
    with pytest.raises(RecipeError, match="forest"):
        fit(rows, truth, names, kinds=("forest",))
    with pytest.raises(RecipeError, match="'f99'"):
        fit(rows, truth, names, subsets={"x": ["f99"]})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 3))
def test_a_feature_that_is_constant_within_each_class_tells_best(seed, classes):
    """Whatever is lost when sums of squares are differenced."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(40) % classes)
    rows = rng.standard_normal((40, 6))
    rows[:, 4] = rng.standard_normal(classes)[truth]
    rows = (rows - rows.mean(0)) / rows.std(0)
    assert telling(rows, truth, 1).tolist() == [4]
    assert 4 in telling(rows, truth, 3)


# -- the single feature ----------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 5])
def test_the_best_single_feature_is_found_and_answers_alone(place):
    rows, truth, names = toy(shift=2)
    rows[:, [0, place]] = rows[:, [place, 0]]
    classifier = best_single_feature(rows, truth, names=names, class_names=CLASSES)
    assert classifier.names == (names[place],)
    answers = classifier.probabilities(np.linspace(-1, 5, 7)[:, None]).argmax(1)
    assert answers.tolist() == sorted(answers.tolist())
    assert set(answers) == {0, 1, 2}


# -- texture, end to end ---------------------------------------------------------------


def texture_case(rng, kind):
    """A lesion whose class is the grain of its texture: its mean, spread and size say
    nothing.
    """
    shape = (12, 24, 24)
    spacing = (2.0, 0.73, 0.73)
    scale = np.array([0.73, 2.0, 2.0]) / 2 * (0.0, 0.7, 1.4)[kind]
    grid = (np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2) * np.array(
        spacing
    ).reshape(3, 1, 1, 1)
    labels = (np.linalg.norm(grid, axis=0) < rng.uniform(6, 8)).astype(int)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), scale)
    inside = field[labels > 0]
    image = ((field - inside.mean()) / inside.std()).astype(np.float32)[None]
    masks = case_masks(labels, LabelScheme(labels={"lesion": 1}), (1,), spacing)
    return handmade_features(image, masks, spacing, channels=["CT"])


def test_a_subtype_that_is_texture_alone_is_found():
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1, 2], 30)
    cases = [texture_case(rng, kind) for kind in truth]
    names = list(cases[0])
    rows = np.array([list(case.values()) for case in cases])
    learn = rows[:60]
    classes = truth[:60]

    def macro_f1(fitted):
        answers = [fitted.classifier.probabilities(case)[0] for case in cases[60:]]
        return f1_score(truth[60:], np.argmax(answers, axis=1), average="macro")

    assert macro_f1(fit(learn, classes, names)) > 0.9
    plain = [name for name in names if "in core" not in name]
    without = fit(learn, classes, names, subsets={"no texture": plain})
    assert macro_f1(without) < 0.75


def test_the_simplest_subset_is_taken_unless_another_is_better_beyond_chance():
    rows, truth, names = toy(counts=(40, 40, 40), features=6, shift=2.0)
    rows[:, 1] += 2.0 * truth  # tells the classes as well as the first, up to chance
    for first, second in ((0, 1), (1, 0)):
        subsets = {
            str(first): names[first : first + 1],
            str(second): names[second : second + 1],
        }
        assert fit(rows, truth, names, subsets=subsets).candidates[0]["subset"] == str(
            first
        )
    better = fit(rows, truth, names, subsets={"noise": names[2:4], "one": names[:1]})
    assert better.candidates[0]["subset"] == "one"
