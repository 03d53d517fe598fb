"""Answers about this machine: doctor."""

from trivox.verbs.answers.base import Answer


class DoctorAnswer(Answer):
    """What `trivox doctor` says of this machine."""

    facts: dict[str, str]
    """What a line says by the word that it begins with: `trivox`, `device auto`, ..."""
