"""What labels are called in terminologies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Codes:
    """The codes of labels."""

    @property
    def digest(self) -> str:
        """A short hash over what it says beside trivox's own table."""
        return ""
