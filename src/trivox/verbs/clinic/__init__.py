"""Verbs of hospitals: archives, DICOM nodes, scans without the person, a service."""
