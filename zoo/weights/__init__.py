"""Weights by name: safetensors and .wts files, arrays in memory, random numbers; every tensor accounted for.

Weights are data: nothing here unpickles, and a damaged file is an error that says where.
"""

from zoo.weights.base import AnyPath, Entry, Weights, from_arrays
from zoo.weights.files import load_weights, parse_weights
from zoo.weights.random import RandomWeights
from zoo.weights.safetensors import save_safetensors
from zoo.weights.wts import save_wts

__all__ = [
    "AnyPath",
    "Entry",
    "RandomWeights",
    "Weights",
    "from_arrays",
    "load_weights",
    "parse_weights",
    "save_safetensors",
    "save_wts",
]
