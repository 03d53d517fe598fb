"""Tasks that give label maps: segmentation, and segmentation with a class for the case."""
