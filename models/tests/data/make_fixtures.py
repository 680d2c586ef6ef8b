"""Makes the two test bundles again: python3 make_fixtures.py (needs PyPI onnx==1.22.0, numpy, Pillow).

Each is one linear layer on 28x28 grey pictures with 3 labels; the second has other weights. The
logits of the golden cases are computed here in float64, by another road than the product's.
"""
import base64, hashlib, io, json, pathlib
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

MEAN, STD = 0.25, 0.5


def model(rng):
    weight = rng.normal(0, 0.05, (3, 784)).astype(np.float32)
    bias = rng.normal(0, 0.5, 3).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"], axis=1),
         helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1)],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString(), weight, bias


def golden(rng, weight, bias):
    cases = []
    for _ in range(4):
        pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        x = (pixels.reshape(-1).astype(np.float64) / 255 - MEAN) / STD
        logits = weight.astype(np.float64) @ x + bias
        cases.append({"media_type": "image/png", "payload": base64.b64encode(png.getvalue()).decode(),
                      "output": [float(np.float32(v)) for v in logits]})
    return json.dumps({"tolerance": 0.001, "cases": cases}).encode()


def manifest(name, version, files):
    entries = "".join(
        f'\n[[file]]\nrole = "{role}"\npath = "{path}"\nlen_bytes = {len(data)}\n'
        f'sha256 = "{hashlib.sha256(data).hexdigest()}"\n' for role, path, data in files)
    return (f'format = 1\nname = "{name}"\nversion = {version}\ntask = "classify"\n'
            f'device_class = "any"\nlabels = ["good", "scratched", "dented"]\n'
            f'output = "logits"\n\n'
            f'[input]\nname = "input"\nchannels = 1\nheight = 28\nwidth = 28\n\n'
            f'[preprocess]\nfit = "stretch"\nmean = [{MEAN}]\nstd = [{STD}]\n{entries}').encode()


for version in (1, 2):
    rng = np.random.default_rng(version)
    out = pathlib.Path(__file__).parent / f"linear-{version}"
    out.mkdir(exist_ok=True)
    graph, weight, bias = model(rng)
    files = [("model", "model.onnx", graph), ("golden", "golden.json", golden(rng, weight, bias))]
    for _, path, data in files:
        (out / path).write_bytes(data)
    (out / "bundle.toml").write_bytes(manifest("linear", version, files))
