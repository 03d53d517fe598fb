"""The secret: the same pseudonyms with the same key, others with another one."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from trivox.errors import DataError, FormatError
from trivox.privacy.key import FARTHEST_DAYS, Key, made_key, read_key, require_outside

KEYS = st.binary(min_size=16, max_size=64).map(Key)


@given(key=KEYS, other=KEYS, uid=st.text(min_size=1))
def test_uids_are_valid_and_follow_key_and_uid_alone(key, other, uid):
    made = key.uid(uid)
    assert UID(made).is_valid
    assert made == key.uid(uid)
    if key != other:
        assert made != other.uid(uid)
    assert key.uid(uid + "1") != made


@given(key=KEYS, patient=st.text())
def test_days_and_names_are_of_their_range(key, patient):
    assert 1 <= key.days(patient) <= FARTHEST_DAYS
    assert len(key.name("patient", patient)) == 10
    assert key.name("patient", patient) != key.name("study", patient)


def test_patients_move_by_days_of_their_own():
    key = Key(b"0123456789abcdef")
    assert len({key.days(str(patient)) for patient in range(100)}) > 90


def test_a_made_key_is_read_again_and_its_owners_alone(tmp_path):
    key = made_key(tmp_path / "secrets" / "key")
    assert read_key(tmp_path / "secrets" / "key") == key
    assert made_key(tmp_path / "secrets" / "key") == key
    assert stat.S_IMODE((tmp_path / "secrets" / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"abc", b"00ff", b"\xff\xfe", b"xy" * 20])
def test_what_is_no_key_is_refused(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(FormatError, match="key"):
        read_key(tmp_path / "key")


def test_a_key_is_not_handed_on(tmp_path):
    with pytest.raises(DataError, match="handed on"):
        require_outside(tmp_path / "out" / "deep" / "key", tmp_path / "out")
    require_outside(tmp_path / "key", tmp_path / "out")
