"""Weights by name: safetensors and .wts files, PyTorch checkpoints, arrays in memory, random numbers.

Weights are data: nothing of a checkpoint is executed, every tensor is accounted for, and a damaged file is an error
that says where.
"""

from zoo.weights.base import COUNTERS, RANGES, AnyPath, Entry, Module, Weights, check_finite, from_arrays
from zoo.weights.files import load_weights, parse_weights
from zoo.weights.random import RandomWeights
from zoo.weights.safetensors import save_safetensors
from zoo.weights.wts import save_wts

__all__ = [
    "COUNTERS",
    "RANGES",
    "AnyPath",
    "Entry",
    "Module",
    "RandomWeights",
    "Weights",
    "check_finite",
    "from_arrays",
    "load_weights",
    "parse_weights",
    "save_safetensors",
    "save_wts",
]
