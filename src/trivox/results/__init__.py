"""What a prediction becomes for people and hospitals: DICOM objects, previews, measurements."""
