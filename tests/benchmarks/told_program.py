"""Stands for the timed processes in `test_measured.py`: notes each turn in a file.

As real ones, the first of two ends its turn when the other one has.
"""

import os
import pathlib
import re
import sys
import time

_, work, *joining = sys.argv[1:]
count, own = joining[4::2] or ("1", "0")
*_, devices = re.findall(r"device_count=(\d+)", os.environ["XLA_FLAGS"])
name = f"{work}, {devices} devices, process {{}} of {count}"
folder = pathlib.Path(os.environ["TOLD"])
turns, others = (folder / name.format(i) for i in (own, int(count) - 1))
print("something that a library says\nready", flush=True)
for _ in sys.stdin:
    with turns.open("a") as stream:
        stream.write("x")
    while not others.exists() or others.stat().st_size < turns.stat().st_size:
        time.sleep(0.01)
    print("done", flush=True)
