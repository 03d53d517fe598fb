"""The DICOM node: who may send, what is taken, and what is vouched for."""
