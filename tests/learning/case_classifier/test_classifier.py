"""A fitted classifier: asked by name or by row, written and read."""

import subprocess
import sys

import numpy as np
import pytest

from classifier_toys import fit, toy
from trivox.errors import BundleError, DataError
from trivox.learning.case_classifier.classifier import CaseClassifier


@pytest.mark.parametrize("kinds", [("lda",), ("lda", "logreg", "mlp")])
@pytest.mark.usefixtures("whole_subsets")
def test_a_classifier_comes_back_from_its_file_unchanged(tmp_path, kinds):
    rows, truth, names = toy()
    classifier = fit(rows, truth, names, kinds=kinds).classifier
    classifier.save(tmp_path / "classifier.safetensors")
    again = CaseClassifier.load(tmp_path / "classifier.safetensors")
    assert (again.names, again.classes, again.kind) == (
        classifier.names,
        classifier.classes,
        classifier.kind,
    )
    np.testing.assert_array_equal(
        again.probabilities(rows), classifier.probabilities(rows)
    )


@pytest.mark.usefixtures("whole_subsets")
def test_a_case_by_name_is_answered_as_by_row_and_missing_names_are_told():
    rows, truth, names = toy()
    classifier = fit(rows, truth, names).classifier
    case = dict(zip(reversed(names), rows[0][::-1], strict=True)) | {"other": 3.0}
    np.testing.assert_array_equal(
        classifier.probabilities(case), classifier.probabilities(rows[:1])
    )
    with pytest.raises(DataError, match="'f3'"):
        classifier.probabilities(
            {name: value for name, value in case.items() if name != "f3"}
        )
    with pytest.raises(DataError, match="needs"):
        classifier.probabilities(rows[:, :3])


@pytest.mark.usefixtures("whole_subsets")
def test_a_damaged_file_is_refused(tmp_path):
    from dataclasses import replace

    rows, truth, names = toy()
    classifier = fit(rows, truth, names).classifier
    path = tmp_path / "classifier.safetensors"
    classifier.save(path)
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:-40],
        whole[:30],
        b"x" * len(whole),
        whole.replace(b'format\\":1', b'format\\":2'),
    ):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"classifier\.safetensors"):
            CaseClassifier.load(path)
    with pytest.raises(BundleError):
        CaseClassifier.load(tmp_path / "absent.safetensors")
    for wrong in (
        {"fill": classifier.fill[:-1]},
        {"scale": classifier.scale * 0},
        {"mean": classifier.mean * np.nan},
        {"classes": ("a", "b")},
        {"names": classifier.names[1:]},
        {"temperature": 0.0},
        {"temperature": float("nan")},
    ):
        bad = replace(classifier, **wrong)
        with pytest.raises(ValueError, match=r"\w"):
            bad._check()  # as `load` does
        with pytest.raises(DataError, match="no classifier could be fitted"):
            bad.save(path)


ASKING = """
import sys
import numpy as np
sys.modules["sklearn"] = None  # whoever imports it fails
sys.modules["torch"] = None
from pathlib import Path
from trivox.learning.case_classifier.classifier import CaseClassifier
classifier = CaseClassifier.load(Path(sys.argv[1]))
print(classifier.probabilities(np.zeros((1, len(classifier.names)))).shape)
"""


@pytest.mark.usefixtures("whole_subsets")
def test_answers_need_neither_scikit_learn_nor_torch(tmp_path):
    rows, truth, names = toy()
    kinds = ("lda", "logreg", "mlp")
    file = tmp_path / "classifier.safetensors"
    fit(rows, truth, names, kinds=kinds).classifier.save(file)
    command = [sys.executable, "-c", ASKING, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 3)", done.stderr
