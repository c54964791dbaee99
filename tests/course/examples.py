"""Measured times and an exercise's test, as several tests of the course need them."""

import torch

from gen_affect_lib.course.checks import compare

MACHINE = {
    "cpu": "a CPU",
    "cores": 2,
    "memory_gb": 8,
    "gpu": None,
    "system": "Linux x86_64",
    "python": "3.11.7",
    "torch": "2.13.0",
}
KNOWN = {
    "smoke": {
        "machine": MACHINE,
        "notebooks": {"01_a": {"seconds": 31.2, "memory_gb": 0.84}, "02_b": {"seconds": 200.0, "memory_gb": 1.0}},
    }
}


def double(x):
    return 2 * x


def doubles(answer):
    compare(
        answer,
        double,
        (torch.randn(3),),
        (torch.randn(2, 4),),
        gradients=True,
        mistakes=[("that is the square: multiply by 2.", lambda x: x**2)],
    )
