"Tests need no network and no data set but the digits; caches go to a temporary folder."
import os

os.environ['HF_HUB_OFFLINE'] = '1'                # before anything imports huggingface_hub
import matplotlib
import pytest

matplotlib.use("Agg")

@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    "Every test decodes into a folder of its own, and finds no data that the user has set."
    monkeypatch.setenv('MINIAI_CACHE', str(tmp_path_factory.mktemp('cache')))
    monkeypatch.delenv('MINIAI_DATA', raising=False)
