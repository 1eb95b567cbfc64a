import pytest
from torch.profiler import ProfilerActivity, profile


def _peak(call):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        call()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.fixture
def peak_bytes():
    """Call -> bytes of tensors it held at most, above what there was before, inside operators too."""
    return _peak
