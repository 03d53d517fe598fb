"""Loaded by `pytest -p pretended_gpu.plugin`, before anything imports torch."""

from pretended_gpu.build import why_not

REASON = why_not()
if REASON is None:
    from pretended_gpu.device import pretend

    pretend()
