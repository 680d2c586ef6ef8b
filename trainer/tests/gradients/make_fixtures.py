"""Makes the fixtures of the gradient test: narrow networks exported by PyTorch, and the gradients of
every parameter that PyTorch computes in 64 bits.

    python3 make_fixtures.py OUT        wants PyTorch 1.13 or newer (Debian: python3-torch)

For each network: model.onnx, and fixture.json beside gradients.f64 and input.f32. The loss is the
sum of the output times fixed numbers; normalisation uses the batch's statistics, as in training.
"""

import copy
import json
import pathlib
import sys

import torch
from torch import nn
from torch.nn import functional as F


def block(i, o, stride=1, groups=1, size=3, act=nn.ReLU):
    conv = nn.Conv2d(i, o, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o), act())


class Residual(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a = block(i, o, stride)
        self.b = nn.Sequential(nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
        plain = stride == 1 and i == o
        self.skip = (
            nn.Identity()
            if plain
            else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x):
        return torch.relu(self.b(self.a(x)) + self.skip(x))


class ResNet18(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width]
        layers, i = [block(3, width, 2), nn.MaxPool2d(3, 2, 1)], width
        for n, o in enumerate(widths):
            layers += [Residual(i, o, 1 if n == 0 else 2), Residual(o, o, 1)]
            i = o
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(i, 7)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, i, o, stride, expand):
        super().__init__()
        h = i * expand
        self.m = nn.Sequential(
            block(i, h, size=1, act=nn.ReLU6),
            block(h, h, stride, groups=h, act=nn.ReLU6),
            nn.Conv2d(h, o, 1, bias=False),
            nn.BatchNorm2d(o),
        )
        self.plain = stride == 1 and i == o

    def forward(self, x):
        return x + self.m(x) if self.plain else self.m(x)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        steps = [(8, 8, 1, 1), (8, 12, 2, 4), (12, 12, 1, 4), (12, 16, 2, 4), (16, 16, 1, 4)]
        self.m = nn.Sequential(
            block(3, 8, 2, act=nn.ReLU6), *[Inverted(*s) for s in steps], block(16, 32, size=1)
        )
        self.head = nn.Sequential(nn.Dropout(0.0), nn.Linear(32, 5))

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.m(x), 1).flatten(1))


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.o = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.f1, self.f2 = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.n1(x)).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5, -1) @ v
        x = x + self.o(a.transpose(1, 2).reshape(b, t, d))
        return x + self.f2(F.gelu(self.f1(self.n2(x))))


class TinyViT(nn.Module):
    def __init__(self, d=24):
        super().__init__()
        self.patch = nn.Conv2d(3, d, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, d) * 0.1)
        self.place = nn.Parameter(torch.randn(1, 17, d) * 0.1)
        self.blocks = nn.Sequential(Attention(d, 3), Attention(d, 3))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 6)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.LSTM(5, 12, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        return self.head(self.l(x)[0].mean(1))


class Dilated(nn.Module):
    def __init__(self):
        super().__init__()
        layers, i = [], 3
        for n, o in enumerate([12, 16, 16]):
            layers += [
                nn.Conv1d(i, o, 5, padding=2 * 2**n, dilation=2**n),
                nn.BatchNorm1d(o),
                nn.LeakyReLU(0.1),
            ]
            i = o
        self.m, self.head = nn.Sequential(*layers, nn.MaxPool1d(4)), nn.Linear(16 * 16, 5)

    def forward(self, x):
        return self.head(self.m(x).flatten(1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.d1, self.d2, self.d3 = block(1, 8), block(8, 12), block(12, 16)
        self.u2, self.c2 = nn.ConvTranspose2d(16, 12, 2, 2), block(24, 12)
        self.c1, self.head = block(20, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        c = self.d3(F.max_pool2d(b, 2))
        b = self.c2(torch.cat([self.u2(c), b], 1))
        up = F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(self.c1(torch.cat([up, a], 1)))


class Neck(nn.Module):
    """A YOLO-like neck: split, concatenate, go up and down again; three scales come out."""

    def __init__(self):
        super().__init__()
        self.stem = block(3, 8, 2, act=nn.SiLU)
        self.p3, self.p4 = block(8, 12, 2, act=nn.SiLU), block(12, 16, 2, act=nn.SiLU)
        self.split, self.part = block(16, 16, size=1, act=nn.SiLU), block(8, 8, act=nn.SiLU)
        self.join = block(24, 12, size=1, act=nn.SiLU)
        self.up, self.down = block(24, 12, act=nn.SiLU), block(12, 12, 2, act=nn.SiLU)
        self.o3, self.o4 = nn.Conv2d(12, 6, 1), nn.Conv2d(24, 6, 1)

    def forward(self, x):
        p3 = self.p3(self.stem(x))
        a, b = self.split(self.p4(p3)).chunk(2, 1)
        p4 = self.join(torch.cat([a, b, self.part(b)], 1))
        p3 = self.up(torch.cat([F.interpolate(p4, scale_factor=2.0, mode="nearest"), p3], 1))
        p4 = torch.cat([self.down(p3), p4], 1)
        return torch.cat([self.o3(p3).flatten(2), self.o4(p4).flatten(2)], 2)


NETWORKS = {
    "resnet18": (ResNet18, (4, 3, 64, 64)),
    "mobilenet_v2": (MobileNetV2, (4, 3, 24, 24)),
    "tiny_vit": (TinyViT, (3, 3, 16, 16)),
    "lstm": (Lstm, (3, 7, 5)),
    "dilated_cnn_1d": (Dilated, (4, 3, 64)),
    "unet": (UNet, (2, 1, 16, 16)),
    "yolo_neck": (Neck, (2, 3, 32, 32)),
}


def gradients(model, x, weights):
    model.train()
    model.zero_grad()
    (model(x) * weights).sum().backward()
    return {name: p.grad.detach().double() for name, p in model.named_parameters()}


def main(out):
    torch.set_num_threads(1)
    for name, (network, shape) in NETWORKS.items():
        torch.manual_seed(7)
        model = network()
        # No two tensors are alike: the exporter would make one of them.
        for module in model.modules():
            if isinstance(module, (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)):
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.2)
            if hasattr(module, "running_var"):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.random_(1, 10**9)
        x = torch.randn(shape)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            model.eval(),
            x,
            str(folder / "model.onnx"),
            opset_version=16,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )
        weights = torch.randn(model(x).shape)
        single = gradients(copy.deepcopy(model), x, weights)
        double = gradients(copy.deepcopy(model).double(), x.double(), weights.double())
        entries = [
            {
                "name": key,
                "shape": list(grad.shape),
                "error_of_32_bits": float((single[key] - grad).norm()),
            }
            for key, grad in double.items()
        ]
        fixture = {"input": list(shape), "output": list(weights.shape), "parameters": entries}
        (folder / "fixture.json").write_text(json.dumps(fixture, indent=1) + "\n")
        x.numpy().tofile(folder / "input.f32")
        weights.numpy().tofile(folder / "loss.f32")
        flat = torch.cat([grad.flatten() for grad in double.values()])
        flat.numpy().tofile(folder / "gradients.f64")
        print(name, flat.numel(), "gradients")


main(pathlib.Path(sys.argv[1]))
