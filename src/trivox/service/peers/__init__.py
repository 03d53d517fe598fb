"""Talking to archives: DICOMweb and DIMSE under one face."""
