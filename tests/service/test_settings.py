"""Profiles and rules: one line for whatever is wrong, and no secret in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trivox
from trivox.service.profiles import chosen_profile, read_profiles
from trivox.service.pseudonyms import Pseudonyms, pseudonyms_of, scrubbed
from trivox.service.rules import read_rules
from trivox.service.secret import read_secret

WEB = '[a]\nurl = "https://pacs.example/dicom-web"\n'
DIMSE = '[a]\nhost = "pacs"\naet = "PACS"\n'


@pytest.fixture
def profiles(tmp_path):
    def read(text):
        file = tmp_path / "pacs.toml"
        file.write_text(text)
        return read_profiles(file)

    return read


@pytest.fixture
def rules(tmp_path):
    def read(text):
        file = tmp_path / "rules.toml"
        file.write_text(text)
        return read_rules(file)

    return read


BAD_PROFILES = {
    "no toml [": "not readable as TOML",
    "[a]\n": "host: Field required",
    '[a]\nurl = "ftp://pacs"\n': "give http:// or https://",
    '[a]\nurl = "https://me:S3CRET@pacs/"\n': "names no user and no password",
    WEB + 'password = "S3CRET"\n': "password: Extra inputs",
    WEB + 'user = "me"\n': "a user needs password_file or password_env",
    WEB + 'token_file = "t"\ntoken_env = "T"\n': "token_file or token_env, not both",
    WEB + 'token_env = "S3CRET value!"\n': "give the name of an environment variable",
    WEB.replace("https", "http") + 'token_env = "T"\n': "would travel in clear text",
    WEB + "timeout = -1\n": "timeout: Input should be greater than 0",
    WEB + 'token = "S3CRET\n': "not readable as TOML (at line 3",
    DIMSE + 'retrieve = "move"\n': "needs a receive_port",
    DIMSE + "port = 70000\n": "port: Input should be less than or equal to 65535",
    DIMSE.replace('"PACS"', '"A TITLE THAT IS LONGER"'): "1 to 16 plain letters",
    DIMSE.replace('"PACS"', r'"A\\B"'): "holds no backslash",
    "['a b']\n" + WEB[4:]: "is no name of a profile",
    "a = 3\n": "a: ",
}


@pytest.mark.parametrize("text", BAD_PROFILES)
def test_a_bad_profile_is_said_in_one_line_without_secrets(profiles, tmp_path, text):
    with pytest.raises(trivox.TrivoxError) as caught:
        profiles(text)
    line = str(caught.value)
    assert BAD_PROFILES[text] in line
    assert line.startswith(str(tmp_path / "pacs.toml"))
    assert "S3CRET" not in line
    assert "\n" not in line


def test_profiles_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(trivox.TrivoxError, match="write the profiles of your archives"):
        read_profiles(tmp_path / "none.toml")


def test_files_of_a_profile_lie_beside_it(profiles, tmp_path):
    known = profiles(WEB + 'user = "me"\npassword_file = "p.txt"\n')
    assert known["a"].password_file == tmp_path / "p.txt"


def test_one_profile_needs_no_name_and_two_do(profiles):
    known = profiles(WEB)
    assert chosen_profile(known, None)[0] == "a"
    two = profiles(WEB + DIMSE.replace("[a]", "[b]"))
    with pytest.raises(trivox.TrivoxError, match="say which archive"):
        chosen_profile(two, None)
    with pytest.raises(trivox.TrivoxError, match="there are: a, b"):
        chosen_profile(two, "c")


def test_a_secret_that_is_missing_is_named_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    with pytest.raises(trivox.TrivoxError, match="NO_SUCH_SECRET is not set"):
        read_secret(None, "NO_SUCH_SECRET", where="profile a")
    for name, content in (("two", "S3CRET\nmore\n"), ("none", ""), ("odd", "a\0b")):
        file = tmp_path / name
        file.write_text(content)
        with pytest.raises(trivox.TrivoxError, match="no secret in one line") as caught:
            read_secret(file, None, where="profile a")
        assert "S3CRET" not in str(caught.value)
    file.write_text("S3CRET \r\n")
    assert read_secret(file, None, where="profile a") == "S3CRET "


# -- rules -----------------------------------------------------------------------------
RULE = '[[rules]]\nname = "ct"\nmodel = "m"\n'
BAD_RULES = {
    "": "rules: Field required",
    "[[rules]]\nname = 'x'\n": "model: Field required",
    RULE + 'description = "("\n': "is no regular expression",
    RULE + 'options = ["--out=/tmp"]\n': "--out is given by the service itself",
    RULE + 'priority = "now"\n': "'urgent', 'normal' or 'low'",
    RULE + 'tags = { NoSuchTag = "x" }\n': "is no keyword and no tag",
    RULE + "formats = []\n": "formats: name at least one",
    RULE + RULE: "two rules are called 'ct'",
    RULE + "colour = 3\n": "colour: Extra inputs",
    '[node]\nbind = "0.0.0.0"\n' + RULE: "name the peers",
    '[node]\ncert_file = "c"\n' + RULE: "TLS needs cert_file and key_file",
    "[intake]\nevery = 0\n" + RULE: "every: Input should be greater than 0",
}


@pytest.mark.parametrize("text", BAD_RULES)
def test_a_bad_rule_is_said_in_one_line(rules, text):
    with pytest.raises(trivox.TrivoxError) as caught:
        rules(text)
    assert BAD_RULES[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_destination_without_a_profile_is_named(rules):
    known = rules(RULE + 'send_to = ["nowhere"]\n')
    with pytest.raises(trivox.TrivoxError, match="nowhere: there is no such profile"):
        known.require_profiles(["web"])


FITS = [
    ('modality = "CT"', {"Modality": "CT"}, True),
    ('modality = ["MR", "ct"]', {"Modality": "CT "}, True),
    ('modality = "MR"', {"Modality": "CT"}, False),
    ('description = "(?i)t1.*post"', {"SeriesDescription": "ax T1 Post"}, True),
    ('description = "^t1$"', {"SeriesDescription": ""}, False),
    ('body_part = "HEAD"', {"BodyPartExamined": "head"}, True),
    ('tags = { "0018,1030" = "brain" }', {"ProtocolName": "the brain"}, True),
    ('tags = { "00181030" = "brain" }', {"ProtocolName": "knee"}, False),
    ('study_description = "x"', {"StudyDescription": "xyz"}, True),
]


@pytest.mark.parametrize(("line", "values", "fits"), FITS)
def test_what_a_rule_is_for(rules, line, values, fits):
    known = rules(RULE + line + "\n")
    rule = known.rules[0]
    assert rule.fits(values.get) is fits
    assert rule.fits({}.get) is None
    assert (known.candidate(values.get) is rule) is fits
    assert known.candidate({}.get) is rule


def test_the_first_rule_that_fits_counts(rules):
    text = (
        RULE + 'modality = "MR"\n' + RULE.replace('"ct"', '"all"') + "instances = 5\n"
    )
    known = rules(text)
    assert known.chosen({"Modality": "MR"}.get, 1).name == "ct"
    assert known.chosen({"Modality": "CT"}.get, 5).name == "all"
    assert known.chosen({"Modality": "CT"}.get, 4) is None


# -- pseudonyms ------------------------------------------------------------------------
def test_names_are_the_same_in_one_folder_and_others_elsewhere(tmp_path):
    one = pseudonyms_of(tmp_path / "one")
    assert one.of("1.2.3") == pseudonyms_of(tmp_path / "one").of("1.2.3 ")
    assert one.of("1.2.3") != pseudonyms_of(tmp_path / "two").of("1.2.3")
    assert (tmp_path / "one" / ".trivox-salt").stat().st_mode & 0o077 == 0


def test_a_damaged_salt_is_said(tmp_path):
    (tmp_path / ".trivox-salt").write_bytes(b"short")
    with pytest.raises(trivox.TrivoxError, match="is damaged"):
        pseudonyms_of(tmp_path)


@given(
    st.lists(st.text("ABCxyz^ 0123", min_size=4, max_size=12), min_size=1), st.data()
)
def test_no_value_survives_scrubbing(values, data):
    text = data.draw(st.text("abc \n", max_size=10))
    for value in values:
        text += value.swapcase() + data.draw(st.text("-;\n", max_size=3))
    words = [" ".join(value.split()) for value in values if value.strip()]
    clean = scrubbed(text, sorted(words, key=len, reverse=True))
    letters = clean.replace("[removed]", "").lower()
    assert not [word for word in words if word and word.lower() in letters]


@given(st.lists(st.integers(0, 10**6), min_size=5, max_size=9))
def test_no_uid_survives_scrubbing(numbers):
    uid = "1." + ".".join(map(str, numbers))
    assert uid not in scrubbed(f"error at {uid}: no")


@given(st.binary(min_size=32, max_size=32), st.text(), st.text())
def test_two_values_have_two_names(salt, one, other):
    names = Pseudonyms(salt)
    assert (names.of(one) == names.of(other)) == (one.strip() == other.strip())
