"""Ray as a simulation needs it: on the loopback interface, silent, with workers that restart."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.config.loading import Config
from experiments.federation.quiet import quiet
from unlearning.errors import ConfigError

__all__ = ["DISPOSABLE", "gpus_per_worker", "start", "tried", "why_not"]

DISPOSABLE = "FEDUNLEARN_DISPOSABLE_WORKER"  # set in the environment of workers that restart

_INLINE_BYTES = 8 << 20  # replies up to this size skip Ray's object store
_ENGINE = "flwr.simulation.run_simulation"  # half a second of imports
_FOR_ALL = {  # read by Flower and Ray when they are imported; what the user set stays
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # bind to loopback, not to every interface
    "RAY_max_direct_call_object_size": str(_INLINE_BYTES),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def start(config: Config, gpus: float = 0.0) -> None:
    """Start Ray here, or join the cluster that the config names.

    Parameters
    ----------
    config : Config
        Its ``engine`` is read.
    gpus : float
        What each worker takes of one.

    Raises
    ------
    ConfigError
        If Ray does not start.
    """
    ray = _imported()
    # Starting is waiting for other processes: what the simulation imports fits in meanwhile.
    meanwhile = threading.Thread(target=_import_engine, daemon=True)
    meanwhile.start()
    address = config.engine.ray_address
    try:
        if address is None:
            _start_here(ray, config, gpus)
        else:
            own = {"env_vars": _for_workers()}
            ray.init(**_settings(), address=address, runtime_env=own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = address or "this machine"
        raise ConfigError(
            f"Ray does not start on {where} ({str(error).splitlines()[0]}); check "
            "engine.ray_address, or leave it out to start one here"
        ) from error
    finally:
        meanwhile.join()


def why_not(limit_s: float = 120.0) -> str | None:
    """Start Ray as a run would and end it again; return None, or in words why it does not start.

    It is tried in a process of its own: Ray waits for its parts in native code, for ever if one of
    them does not answer, and nothing but the end of the process ends that.

    Parameters
    ----------
    limit_s : float
        How long it may take; ten seconds are usual.
    """
    here = f"from {__name__} import tried; print(tried() or '')"
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    asked = subprocess.Popen(
        [sys.executable, "-c", here],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told, complaint = asked.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(asked.pid, signal.SIGKILL)
        asked.communicate()
        return f"does not start within {limit_s:.0f} s"
    if asked.returncode:
        last = complaint.strip().splitlines()[-1:] or [f"exit code {asked.returncode}"]
        return f"does not start ({last[0]})"
    return told.strip() or None


def tried() -> str | None:
    """Start Ray and end it again here; return None, or in words why it does not start."""
    ray = _imported()
    try:
        _start_here(ray, Config(), 0.0)
    except (ConnectionError, ValueError, RuntimeError) as error:
        return f"does not start ({str(error).splitlines()[0]})"
    ray.shutdown()
    return None


def gpus_per_worker(config: Config) -> float:
    """Return the share of a GPU that each worker takes: set, or one GPU split between them."""
    if config.engine.gpus_per_worker is not None:
        return config.engine.gpus_per_worker
    if config.device == "cpu":
        return 0.0
    import torch

    return 1 / config.engine.workers if torch.cuda.is_available() else 0.0


def _imported() -> Any:
    for key, value in _FOR_ALL.items():
        os.environ.setdefault(key, value)
    with warnings.catch_warnings(), quiet("ray.widgets"):
        # In a notebook it asks for widgets, which nothing here shows.
        warnings.filterwarnings("ignore", "IProgress not found")
        import ray
    return ray


def _import_engine() -> None:
    with contextlib.suppress(Exception):  # who asks for it afterwards meets it again, and says so
        importlib.import_module(_ENGINE)


def _start_here(ray: Any, config: Config, gpus: float) -> None:
    """Start Ray on this machine, for this process alone.

    Its workers take their environment from this process. A ``runtime_env`` would say the same to a
    cluster; but Ray begins as many workers as there are processors before it knows of any, and
    those would be ended again, and others started in their place.
    """
    # Without an address Ray joins whatever cluster somebody started on this machine.
    own = {"address": "local", "include_dashboard": False, "num_cpus": config.engine.workers}
    with _environment(_for_workers()):
        ray.init(**_settings(), **own, **({"num_gpus": 1} if gpus else {}))


def _settings() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.ERROR}


def _for_workers() -> dict[str, str]:
    """Return what workers must find in their environment: our modules, and that they may end."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {"PYTHONPATH": paths, DISPOSABLE: "1"}


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what is started in the block; this process is none of the workers."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
