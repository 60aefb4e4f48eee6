"""Small networks, each with one operator or pattern that channel pruning must understand."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Network(nn.Module):
    """``stem`` makes 16 channels of a (3, 8, 8) image, ``head`` 5 outputs of ``width`` channels."""

    width = 16
    shape: tuple[int, ...] = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.build()
        self.head = nn.Linear(self.width, 5)

    def build(self) -> None: ...

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(functional.relu(self.stem(x))).mean((2, 3)))


class Residual(Network):
    def build(self) -> None:
        self.one, self.norm = nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.two = nn.Conv2d(24, 16, 1, bias=False)

    def middle(self, x):
        return torch.relu_(x + self.two(self.norm(self.one(x)).sigmoid()))


class PaddedShortcut(Network):
    width = 32

    def build(self) -> None:
        self.one = nn.Conv2d(16, 32, 3, stride=2, padding=1)

    def middle(self, x):
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        return functional.relu(self.one(x) + shortcut)


class Concat(Network):
    width = 40

    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 8, 1), nn.Conv2d(24, 16, 1)

    def middle(self, x):
        x = torch.cat([x, self.one(x)], 1)
        return torch.cat([x, self.two(x)], dim=1)


class Split(Network):
    def build(self) -> None:
        self.one = nn.Conv2d(16, 40, 1)
        self.two, self.three = nn.Conv2d(8, 16, 1), nn.Conv2d(32, 16, 1)

    def middle(self, x):
        one, other = self.one(x).split([8, 32], 1)
        return self.two(one) * self.three(other)


class Chunk(Network):
    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 48, 1), nn.Conv2d(24, 16, 1)

    def middle(self, x):
        value, gate = self.one(x).chunk(2, 1)
        return self.two(value) + self.two(gate.tanh())


class Slices(Network):
    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)

    def middle(self, x):
        x = self.one(x)
        return self.two(torch.cat((x[:, 10:], x.narrow(1, 0, 10)), 1))


class Shuffle(Network):
    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 16, 1), nn.Conv2d(32, 16, 1)

    def middle(self, x):
        x = torch.cat([x, self.one(x)], 1)
        n, c, h, w = x.shape
        return self.two(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w))


class FewGroups(Network):
    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 32, 3, padding=1, groups=2), nn.Conv2d(32, 16, 1)

    def middle(self, x):
        return self.two(self.one(x))


class ManyGroups(Network):
    width = 48

    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 48, 3, padding=1, groups=16)

    def middle(self, x):
        return self.two(self.one(x))


class Depthwise(Network):
    width = 32

    def build(self) -> None:
        self.one = nn.Conv2d(16, 32, 3, padding=1, groups=16)

    def middle(self, x):
        return self.one(x)


class SqueezeExcite(Network):
    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def middle(self, x):
        scale = functional.adaptive_avg_pool2d(x, 1)
        return x * functional.hardsigmoid(self.two(functional.silu(self.one(scale))))


class SqueezeExciteLinear(Network):
    def build(self) -> None:
        self.one, self.two = nn.Linear(16, 8), nn.Linear(8, 16)

    def middle(self, x):
        scale = torch.sigmoid(self.two(functional.relu(self.one(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


class Flatten(Network):
    width = 12

    def build(self) -> None:
        self.pool, self.one = nn.MaxPool2d(2), nn.Linear(16 * 4 * 4, 12)

    def middle(self, x):
        return self.one(torch.flatten(self.pool(x), 1))[:, :, None, None]


class LayerNorms(Network):
    def build(self) -> None:
        self.norm, self.one = nn.LayerNorm(16, eps=1e-3), nn.Linear(16, 16)

    def middle(self, x):
        x = x.permute(0, 2, 3, 1)
        return (x + self.one(self.norm(x))).permute(0, 3, 1, 2)


class GroupNorms(Network):
    def build(self) -> None:
        self.norm, self.one = nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 1)

    def middle(self, x):
        return self.one(self.norm(x))


class Response(nn.Module):
    """Global response normalisation: a mean over channels (ConvNeXt V2, section 3.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, 16, 1, 1) + 0.5)
        self.bias = nn.Parameter(torch.randn(1, 16, 1, 1))

    def mean(self, x):
        return x.mean(1, keepdim=True)

    def forward(self, x):
        size = x.square().mean((2, 3), keepdim=True).sqrt()
        return x + torch.addcmul(self.bias, self.weight, x * (size / (self.mean(size) + 1e-6)))


class ResponseNorm(Network):
    def build(self) -> None:
        self.response, self.one = Response(), nn.Conv2d(16, 16, 1)

    def middle(self, x):
        return self.one(self.response(x))


class Prelu(Network):
    def build(self) -> None:
        self.slope, self.one, self.single = nn.PReLU(16), nn.Conv2d(16, 16, 1), nn.PReLU()

    def middle(self, x):
        return self.single(self.one(self.slope(-x)))


class Transposed(Network):
    width = 24

    def build(self) -> None:
        self.one = nn.ConvTranspose2d(16, 24, 2, stride=2)

    def middle(self, x):
        return self.one(x)


class InPlaceOnView(Network):
    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 16, 1)

    def middle(self, x):
        x = self.one(x)
        x[:, :16].mul_(2.0).clamp_(min=-0.5)
        return self.two(x[:, :16] - x[:, 16:])


class CalledTwice(Network):
    def build(self) -> None:
        self.one = self.again = nn.Conv2d(16, 16, 3, padding=1)

    def middle(self, x):
        return self.again(functional.relu(self.one(x)))


class WeightUsedTwice(Network):
    def build(self) -> None:
        self.one = nn.Conv2d(16, 16, 1)

    def middle(self, x):
        return functional.conv2d(self.one(x), self.one.weight.transpose(0, 1))


class LayerScale(Network):
    def build(self) -> None:
        self.scale = nn.Parameter(torch.rand(16, 1, 1) + 0.5)
        self.one = nn.Conv2d(16, 16, 1)

    def middle(self, x):
        return x + self.scale * self.one(x)


class Upsampled(Network):
    def build(self) -> None:
        self.one = nn.Conv2d(16, 16, 3, stride=2, padding=1)

    def middle(self, x):
        small = self.one(x)
        return x * functional.interpolate(small, scale_factor=2, mode="bilinear")


class Selective(Network):
    """Branches stacked, weighed by a softmax over branches and summed (selective kernels)."""

    def build(self) -> None:
        self.one, self.two = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.fold, self.weigh = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 32, 1)

    def middle(self, x):
        branches = torch.stack([self.one(x), self.two(x)], dim=1)  # (N, 2, 16, 8, 8)
        weights = self.weigh(self.fold(branches.sum(1).mean((2, 3), keepdim=True)))
        weights = weights.view(x.size(0), 2, 16, 1, 1).softmax(1)
        return (branches * weights).sum(1)


class Attention(Network):
    """timm's: one layer makes queries, keys and values, a view and ``unbind`` part them."""

    way = "sdpa"

    def build(self) -> None:
        self.qkv, self.project = nn.Linear(16, 96), nn.Linear(32, 16)

    def middle(self, x):
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (N, 64, 16)
        qkv = self.qkv(tokens).reshape(n, h * w, 3, 2, 16).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (N, 2, 64, 16)
        if self.way == "sdpa":
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = ((q * 16**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        tokens = tokens + self.project(mixed.transpose(1, 2).reshape(n, h * w, 32))
        return tokens.transpose(1, 2).reshape(n, c, h, w)


class MatmulAttention(Attention):
    way = "matmul"


class Embeddings(nn.Module):
    """Tokens (N, 6): two embeddings summed, a normed layer and a head."""

    shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(6, 16)
        self.one, self.head = nn.Linear(16, 24), nn.Linear(24, 5)
        self.register_buffer("order", torch.arange(6))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.words(x.abs().mul(7).long()) + self.places(self.order)
        return self.head(functional.gelu(self.one(tokens)).mean(1))


class PixelShuffled(Network):
    """Every four channels become one: they go together or stay."""

    width = 4

    def middle(self, x):
        return functional.pixel_shuffle(x, 2)


class Unknown(Network):
    """A sum along the channels knows which is which."""

    def build(self) -> None:
        self.one = nn.Conv2d(16, 16, 1)
        self.two = nn.Conv2d(16, 16, 1)

    def middle(self, x):
        return self.two(torch.cumsum(self.one(x), 1))


class Sorted(Network):
    def middle(self, x):
        return x.sort(1).values
