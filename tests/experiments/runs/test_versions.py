"""The versions that stand in results: those installed, looked up once per process."""

from importlib.metadata import version

from experiments.runs import versions as module


def test_versions_are_those_installed_and_are_looked_up_once(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "version", lambda name: asked.append(name) or version(name))
    module._versions.cache_clear()
    module.versions()["numpy"] = "changed by whoever asked"
    assert module.versions()["numpy"] == version("numpy")
    assert len(asked) == len(set(asked)) > 1
