"""Objects in which every attribute that the standard has holds something that must not
survive.
"""

from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from trivox.privacy.profile import NUMBERS

LIVING = {
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "ImageType",
    "BurnedInAnnotation",
    "SpecificCharacterSet",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "TransferSyntaxUID",
}
"""What decides how an object is read, or whether it is taken at all."""
NESTED = ("SharedFunctionalGroupsSequence", "ContentSequence", "SegmentSequence")
TEXTS = ("PN", "LO", "SH", "LT", "ST", "UT", "UC", "UR", "CS", "AE", "AS")


def canary_of(number, kind):
    """A value of a kind that stands nowhere else."""
    if kind in TEXTS:
        return f"CAN{number:05d}"
    if kind == "UI":
        return f"1.2.826.0.777.1{number}"
    if kind == "DA":
        return "19630517"
    if kind == "TM":
        return "071523.963"
    if kind == "DT":
        return "19630517071523"
    if kind in ("DS", "IS"):
        return (
            f"{8_765_000_000 + number}" if kind == "DS" else f"{1_765_000_000 + number}"
        )
    return None


def planted(dataset, *, depth=1):
    """Plant canaries in all attributes that are not there yet; returns them."""
    canaries = set()
    for number, (tag, entry) in enumerate(DicomDictionary.items()):
        kind, _, _, _, keyword = entry
        if not keyword or keyword in LIVING or keyword in dataset:
            continue
        if keyword in NESTED and depth:
            item = Dataset()
            canaries |= planted(item, depth=depth - 1)
            setattr(dataset, keyword, Sequence([item]))
            continue
        value = canary_of(number, kind)
        if value is None or keyword in NUMBERS or tag >> 16 < 8:
            continue
        dataset.add_new(tag, kind, value)
        canaries.add(value)
    return canaries


def with_private(dataset):
    """Private attributes, an overlay, a preamble; returns what they hold."""
    block = dataset.private_block(0x0029, "CANARYMAKER", create=True)
    block.add_new(0x10, "LO", "CANARYPRIVATE")
    block.add_new(0x11, "OB", b"CANARYBYTES!")
    dataset.add_new((0x6000, 0x3000), "OW", b"CANARYOVERLAY!")
    dataset.preamble = b"CANARYPREAMBLE".ljust(128, b"\0")
    return {
        "CANARYMAKER",
        "CANARYPRIVATE",
        "CANARYBYTES",
        "CANARYOVERLAY",
        "CANARYPREAMBLE",
    }
