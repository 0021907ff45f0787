"""A daemon that nobody asks anything."""

import time

from .measure import Aim, Case, Row
from .rig import children, cpu_seconds


def idle_once(rig, ours):
    pids = children(ours.process.pid)
    switches, cpu, start = ours.wake_ups(), cpu_seconds(pids), time.monotonic()
    time.sleep(rig.sizes.idle_seconds)
    return {"wake-ups": ours.wake_ups() - switches,
            "cpu": (cpu_seconds(pids) - cpu) / (time.monotonic() - start) * 100}


def idle(rig):
    ours = rig.mount()
    (ours.path / "object").write_bytes(b"x" * 4096)
    time.sleep(min(2, rig.sizes.idle_seconds))  # what the put has left to do is done
    title = f"idle daemon, {rig.sizes.idle_seconds:g} s"
    return [Case("idle", {"ours": lambda: idle_once(rig, ours)}, [
        Row(f"{title}: wake-ups", "", "ours", None, Aim("<=", 0), "wake-ups"),
        Row(f"{title}: CPU", "%", "ours", None, Aim("<=", 0, " %"), "cpu")],
                 runs=min(3, rig.sizes.runs), warm_up=False)]


SCENARIOS = {"idle": idle}
