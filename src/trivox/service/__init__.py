"""Models at work beside a PACS: its client, its rules, the queue of studies, the DICOM node."""
