"""DICOM: from the files that hold a series to one volume."""
