"""What was measured as files for people and programs: tables and DICOM reports."""
