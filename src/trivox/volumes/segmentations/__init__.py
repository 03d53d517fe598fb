"""Objects that name what they mark: DICOM SEG, RTSTRUCT and segmentations of 3D Slicer."""
