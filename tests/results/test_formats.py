"""What `--format` takes, and what follows from it."""

from typing import get_args

import pytest

from trivox.config.choices import ResultFormat
from trivox.errors import UsageError
from trivox.results.formats import FORMATS, MAP, WRITERS, parse_formats


def test_every_name_that_the_command_line_offers_is_written_by_something():
    assert (MAP, *WRITERS) == FORMATS == get_args(ResultFormat)


def test_formats_come_with_commas_between_each_once():
    assert parse_formats(None) is None
    assert parse_formats(" NIfTI,nifti ") == ("nifti",)
    assert parse_formats(["nifti"]) == ("nifti",)


@pytest.mark.parametrize("given", ["", "dicom", "nifti,", "nifti;seg", []])
def test_other_names_are_refused_in_a_line_that_lists_the_choices(given):
    with pytest.raises(UsageError, match=r"--format .*choose of nifti") as refused:
        parse_formats(given)
    assert "\n" not in str(refused.value)
