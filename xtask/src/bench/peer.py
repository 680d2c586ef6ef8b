"""The other side of `cargo xtask bench trainer`: PyTorch on the very same ONNX file.

    python3 -c <this> FOLDER THREADS    the folder is what `step make` wrote

Reads lines from standard input, a number of steps each, and answers as `step run` does. The graph's
nodes become calls of torch.nn.functional in the file's order; its float initializers become
parameters or, for normalisations, running statistics.
"""

import json
import math
import pathlib
import sys
import time

import numpy
import onnx
import onnx.numpy_helper
import torch
from torch.nn import functional as F


def memory():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    size = {l.split(":")[0]: int(l.split()[1]) * 1024 for l in lines if l.startswith("Vm")}
    return size["VmRSS"], size["VmHWM"]


def report(processor, wall, loss):
    now, peak = memory()
    answer = {
        "processor_s": processor,
        "wall_s": wall,
        "loss": None if math.isnan(loss) else loss,
        "now_bytes": now,
        "peak_bytes": peak,
        "version": torch.__version__,
    }
    print(json.dumps(answer), flush=True)


def conv(at, x, w, b=None):
    pads, axes = at["pads"], len(at["kernel_shape"])
    assert pads[:axes] == pads[axes:], "pads of both sides alike"
    call = F.conv1d if axes == 1 else F.conv2d
    return call(x, w, b, at["strides"] if "strides" in at else 1, pads[:axes])


def max_pool(at, x):
    size, pads = at["kernel_shape"], at.get("pads", [0] * 4)
    call = F.max_pool1d if len(size) == 1 else F.max_pool2d
    return call(x, size, at["strides"], pads[: len(size)])


OPERATORS = {
    "Conv": conv,
    "MaxPool": max_pool,
    "BatchNormalization": lambda at, x, s, b, m, v: F.batch_norm(
        x, m, v, s, b, True, 1 - at["momentum"], at["epsilon"]
    ),
    "Relu": lambda at, x: F.relu(x),
    "Add": lambda at, a, b: a + b,
    "Flatten": lambda at, x: x.flatten(at["axis"]),
    "GlobalAveragePool": lambda at, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "Gemm": lambda at, x, w, b: F.linear(x, w, b),
}


class Graph(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        graph = onnx.load(path).graph
        norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
        running = {name for node in norms for name in node.input[3:]}
        self.values = {}
        for tensor in graph.initializer:
            value = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            if tensor.name not in running:
                value = torch.nn.Parameter(value)
                self.register_parameter(tensor.name.replace(".", "_"), value)
            self.values[tensor.name] = value
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.steps = []
        for node in graph.node:
            at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            self.steps.append((OPERATORS[node.op_type], at, list(node.input), node.output[0]))

    def forward(self, x):
        values = dict(self.values)
        values[self.input] = x
        last = {name: i for i, step in enumerate(self.steps) for name in step[2]}
        for i, (call, at, inputs, output) in enumerate(self.steps):
            values[output] = call(at, *[values[n] for n in inputs])
            for name in inputs:
                if last[name] == i:
                    values.pop(name, None)
        return values[self.output]


def main(folder, threads):
    torch.set_num_threads(threads)
    shape = [int(d) for d in (folder / "shape.txt").read_text().split()]
    x = numpy.fromfile(folder / "x.f32", numpy.float32).reshape(shape)
    labels = torch.from_numpy(numpy.fromfile(folder / "labels.i64", numpy.int64))
    model = Graph(folder / "model.onnx")
    weights = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, eps=1e-8)
    report(0.0, 0.0, math.nan)
    for line in sys.stdin:
        before, begun, loss = time.process_time(), time.perf_counter(), None
        for _ in range(int(line)):
            loss = F.cross_entropy(model(torch.from_numpy(x.copy())), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            value = loss.item()
        report(time.process_time() - before, time.perf_counter() - begun, value)


main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
