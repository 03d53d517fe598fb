"""Loaded by `pytest -p pretended_gpu.plugin`, before anything imports torch."""

from pretended_gpu.build import why_not

REASON = why_not()
if REASON is None:
    from pretended_gpu.device import pretend

    pretend()


def pytest_configure(config):
    # operators that are composed on a GPU give the CPU's kernels a result to resize
    resized = "ignore:An output with one or more elements was resized:UserWarning"
    config.addinivalue_line("filterwarnings", resized)
