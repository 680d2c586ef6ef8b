"""Writes ONNX's backend tests as files: SUITE/NAME/model.onnx and test_data_set_0/*.pb.

    backend_tests.py PACKAGES OUT      PACKAGES holds the Python package 'onnx' and what it needs
"""

import pathlib
import shutil
import sys

packages, out = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, packages)

import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests


def save(case, folder):
    (folder / "test_data_set_0").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    inputs, outputs = case.data_sets[0]
    for kind, values, infos in (
        ("input", inputs, case.model.graph.input),
        ("output", outputs, case.model.graph.output),
    ):
        for number, (value, info) in enumerate(zip(values, infos)):
            # Sequences, optionals and maps are no tensors; their tests are refused for that.
            if not isinstance(value, onnx.TensorProto):
                try:
                    value = numpy_helper.from_array(value, info.name)
                except Exception:
                    continue
            path = folder / "test_data_set_0" / f"{kind}_{number}.pb"
            path.write_bytes(value.SerializeToString())


for case in load_model_tests(kind="node"):
    save(case, out / "node" / case.name)
data = pathlib.Path(onnx.__file__).parent / "backend/test/data"
for suite in ("pytorch-converted", "pytorch-operator"):
    shutil.copytree(data / suite, out / suite)
