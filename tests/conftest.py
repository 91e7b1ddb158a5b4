"Tests need no network and no data set but the digits; caches go to a temporary folder. And a callback that interrupts."
import os

os.environ['HF_HUB_OFFLINE'] = '1'                # before anything imports huggingface_hub
import matplotlib
import pytest

from miniai.learner import Callback

matplotlib.use("Agg")

@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    "Every test decodes into a folder of its own, and finds no data that the user has set."
    monkeypatch.setenv('MINIAI_CACHE', str(tmp_path_factory.mktemp('cache')))
    monkeypatch.delenv('MINIAI_DATA', raising=False)

class At(Callback):
    "Raises `exc` at the `nth` time that an event comes."
    def __init__(self, event, exc=KeyboardInterrupt, nth=1, order=0):
        self.exc, self.left, self.order = exc, nth, order
        setattr(self, event, self._raise)
    def _raise(self, learn):
        self.left -= 1
        if self.left==0: raise self.exc()
