"""JSON that people edited: each part of it left out, or exchanged for something else."""

WRONG = (None, 2**70, "x", [], [5], {"x": 5})


def damaged(content):
    """The content with one part changed, at any depth."""
    parts = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in list(parts):
        others = [each for each in WRONG if each != value]
        if isinstance(value, dict | list):
            others += damaged(value)
        for other in others:
            changed = content.copy()
            changed[name] = other
            yield changed
        shorter = content.copy()
        del shorter[name]
        yield shorter
