"""What can stand beside a predicted label map, as `CASE_<extra>.nii.gz`."""

KINDS = ("entropy", "mutual_information", "variance")
"""Maps of doubt; see `trivox.inference.doubt.uncertainty`."""
EXTRAS = ("probabilities", *KINDS)
