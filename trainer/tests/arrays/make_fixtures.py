"""Writes the small .npz files that trainer/src/arrays/tests.rs reads.

python3 trainer/tests/arrays/make_fixtures.py    # NumPy 2.4.6 wrote what is committed
"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def save(name, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(HERE / f"{name}.npz", **arrays)


x = np.arange(24, dtype="float64").reshape(4, 3, 2) / 2
save("classes", x=np.asfortranarray(x), y=np.array([2, 0, 1, 2], "int16"), group=np.array(["a", "bb", "a", "ü"]))
save(
    "values",
    compressed=True,
    x=np.array([[1, 2], [3, 4], [250, 255]], "uint8"),
    y=np.array([[0.5, -1], [1.5, 2], [3, 4]], ">f4"),
    group=np.array([7, 7, 8]),
)
save("inputs", x=np.array([[0.5, -0.25]], "float16"))
save("truths", x=np.zeros((2, 1), "float32"), y=np.array([True, False]))
save("no_x", inputs=np.zeros((2, 1)), y=np.array([0, 1]))
save("one_axis", x=np.zeros(3))
save("no_samples", x=np.zeros((0, 3)))
save("lengths", x=np.zeros((3, 2)), y=np.array([0, 1]))
save("nan", x=np.array([[1.0, 2.0], [3.0, np.nan]]))
save("too_large", x=np.array([[1.0], [1e300]]))
save("nan_target", x=np.zeros((2, 1)), y=np.array([1.0, np.inf]))
save("objects", x=np.zeros((2, 1)), y=np.array([0, None], dtype=object))
save("fields", x=np.zeros((2, 1), dtype=[("a", "f4"), ("b", "i4")]))
save("texts", x=np.array([["a"], ["b"]]))
save("complex", x=np.zeros((2, 1), "complex64"))
