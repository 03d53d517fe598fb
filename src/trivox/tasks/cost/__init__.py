"""What a training costs: rehearsed before, measured while it goes on, shown after."""
