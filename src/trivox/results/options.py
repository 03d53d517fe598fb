"""How results are written, where there is a choice."""

from dataclasses import dataclass, field

from trivox.config.choices import SegType
from trivox.results.codes import Codes


@dataclass(frozen=True)
class ResultOptions:
    """seg_type: of DICOM segmentations; codes: what labels are called in terminologies."""

    seg_type: SegType = "binary"
    codes: Codes = field(default_factory=Codes)

    def record(self) -> dict[str, object]:
        """The options ready for JSON, to see later whether they are the same."""
        return {"seg_type": self.seg_type, "codes": self.codes.digest}


AS_USUAL = ResultOptions()
