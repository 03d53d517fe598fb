"""From a bundle and an image to a result on the image's own grid."""
