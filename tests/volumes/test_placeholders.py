"""Files that were never fetched are called what they are, in every format."""

import pytest

from trivox.errors import FormatError
from trivox.volumes.formats import SUFFIXES, read_header, read_labels, read_volume

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
CONTENTS = {
    "Git LFS": LFS,
    "git-annex": b"/annex/objects/SHA256E-s12--4d7a.nii.gz\n",
    "a web page": b"\n  <!DOCTYPE HTML><html><body>404</body></html>",
    "web page": b"<html><body>moved</body></html>",
    "is empty": b"",
}


@pytest.mark.parametrize("read", [read_volume, read_labels, read_header])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", CONTENTS)
def test_what_stands_in_the_place_of_a_file_is_named(tmp_path, what, suffix, read):
    file = tmp_path / f"scan{suffix}"
    file.write_bytes(CONTENTS[what])
    with pytest.raises(FormatError, match=what) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: is ")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_link_to_nothing_says_where_it_leads(tmp_path, suffix):
    file = tmp_path / f"scan{suffix}"
    file.symlink_to("annex/objects/gone")
    with pytest.raises(FormatError, match="link to annex/objects/gone"):
        read_volume(file)
