"""From a source image to stored, augmented patches."""
