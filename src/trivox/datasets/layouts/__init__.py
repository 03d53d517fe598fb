"""How datasets lie on disk: one module a layout, `choice` finds the one that fits."""
