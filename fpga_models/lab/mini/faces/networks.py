"""The three small face networks, in the tensor contracts that insightface reads from ONNX files.

Shapes only: no data, no losses. Encoder A is a residual CNN; encoder B, the judge that the product never
loads, is a patch ConvNet of another family so that the two do not share their blind spots.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING_WIDTH = 512
STRIDES = (8, 16, 32)
ANCHORS_PER_CELL = 2


def conv_bn(inputs: int, outputs: int, *, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution without bias, then batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; (B, C, H, W) to the same, or strided and widened."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_bn(inputs, outputs, stride=stride)
        self.second = conv_bn(outputs, outputs)
        changed = stride != 1 or inputs != outputs
        self.shortcut = conv_bn(inputs, outputs, stride=stride, size=1) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + branch(x))."""
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class EncoderA(nn.Module):
    """Conditioning recogniser: aligned RGB crop (B, 3, 112, 112) in [-1, 1] to (B, 512), not normalised.

    The crop is halved first: the mini world has no detail that 56 px would lose. A global depthwise
    convolution replaces ArcFace's large fully connected layer [field: MobileFaceNet].
    """

    def __init__(self, widths: tuple[int, int, int] = (48, 96, 192)) -> None:
        super().__init__()
        low, middle, high = widths
        self.stem = conv_bn(12, low)
        self.body = nn.Sequential(
            ResidualBlock(low, low),
            ResidualBlock(low, middle, stride=2),
            ResidualBlock(middle, middle),
            ResidualBlock(middle, high, stride=2),
            ResidualBlock(high, high),
        )
        self.pool = nn.Sequential(nn.Conv2d(high, high, 7, groups=high, bias=False), nn.BatchNorm2d(high))
        self.project = nn.Linear(high, EMBEDDING_WIDTH, bias=False)
        self.norm = nn.BatchNorm1d(EMBEDDING_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Embed crops."""
        return self.embed(F.avg_pool2d(x, 2))

    def embed(self, halved: Tensor) -> Tensor:
        """Embed crops that are halved already, (B, 3, 56, 56): training augments at this size."""
        x = self.stem(F.pixel_unshuffle(halved, 2))  # (B, C, 28, 28)
        x = self.pool(self.body(F.relu(x)))  # (B, C, 1, 1)
        embedding: Tensor = self.norm(self.project(x.flatten(1)))
        return embedding


class PatchBlock(nn.Module):
    """Depthwise 7x7, then a widened pointwise pair, residual [field: ConvNeXt]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.widen = nn.Conv2d(width, 3 * width, 1)
        self.narrow = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, h, w) plus the branch."""
        branch: Tensor = self.narrow(F.gelu(self.widen(self.norm(self.spatial(x)))))
        return x + branch


class EncoderB(nn.Module):
    """Evaluation recogniser, same contract as encoder A: (B, 3, 112, 112) in [-1, 1] to (B, 512)."""

    def __init__(self, widths: tuple[int, int] = (96, 176), depths: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        low, high = widths
        self.patches = nn.Conv2d(3, low, 4, 4)
        self.fine = nn.Sequential(*(PatchBlock(low) for _ in range(depths[0])))
        self.merge = nn.Conv2d(low, high, 2, 2)
        self.coarse = nn.Sequential(*(PatchBlock(high) for _ in range(depths[1])))
        self.norm = nn.LayerNorm(high * 2)
        self.project = nn.Linear(high * 2, EMBEDDING_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Embed crops."""
        return self.embed(F.avg_pool2d(x, 2))

    def embed(self, halved: Tensor) -> Tensor:
        """Embed halved crops (B, 3, 56, 56) from the mean and the maximum over the last grid."""
        x = self.fine(self.patches(halved))  # (B, C, 14, 14)
        x = self.coarse(self.merge(x)).flatten(2)  # (B, C', 49)
        embedding: Tensor = self.project(self.norm(torch.cat([x.mean(2), x.amax(2)], 1)))
        return embedding


class Detector(nn.Module):
    """SCRFD-shaped face detector with five keypoints: (1, 3, H, W) to insightface's nine outputs.

    H and W are multiples of 32; pixels are (RGB - 127.5) / 128. Outputs, for strides 8, 16, 32: three scores
    (N, 1) in [0, 1], three boxes (N, 4) as left, top, right, bottom distances and three keypoint sets (N, 10) as
    x, y offsets, both in units of the stride and from the cell's corner; N = 2 * H/stride * W/stride, row by row.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 48, 64), head: int = 48) -> None:
        super().__init__()
        quarter, eighth, sixteenth, last = widths
        self.stem = nn.Sequential(
            conv_bn(3, quarter, stride=2), nn.ReLU(), conv_bn(quarter, eighth, stride=2), nn.ReLU()
        )
        self.down8 = nn.Sequential(ResidualBlock(eighth, sixteenth, stride=2), ResidualBlock(sixteenth, sixteenth))
        self.down16 = nn.Sequential(ResidualBlock(sixteenth, last, stride=2), ResidualBlock(last, last))
        self.down32 = nn.Sequential(ResidualBlock(last, last, stride=2), ResidualBlock(last, last))
        self.lateral = nn.ModuleList(conv_bn(width, head, size=1) for width in (sixteenth, last, last))
        self.heads = nn.ModuleList(nn.Sequential(conv_bn(head, head), nn.ReLU()) for _ in STRIDES)
        self.score = nn.ModuleList(nn.Conv2d(head, ANCHORS_PER_CELL, 3, padding=1) for _ in STRIDES)
        self.box = nn.ModuleList(nn.Conv2d(head, ANCHORS_PER_CELL * 4, 3, padding=1) for _ in STRIDES)
        self.points = nn.ModuleList(
            nn.Sequential(conv_bn(head, head), nn.ReLU(), nn.Conv2d(head, ANCHORS_PER_CELL * 10, 3, padding=1))
            for _ in STRIDES
        )
        for layer in self.score:
            nn.init.constant_(layer.get_parameter("bias"), -4.0)  # start near the true share of faces among cells

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return features (B, head, H/s, W/s) for the three strides, coarse merged into fine."""
        fine = self.down8(self.stem(x))
        middle = self.down16(fine)
        coarse = self.down32(middle)
        levels = [lateral(level) for lateral, level in zip(self.lateral, (fine, middle, coarse), strict=True)]
        levels[1] = levels[1] + F.interpolate(levels[2], scale_factor=2.0, mode="nearest")
        levels[0] = levels[0] + F.interpolate(levels[1], scale_factor=2.0, mode="nearest")
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score logits (B, N), box distances (B, N, 4), keypoint offsets (B, N, 10) over all strides."""
        scores, boxes, points = [], [], []
        for index, level in enumerate(self.pyramid(x)):
            scores.append(_rows(self.score[index](level), 1).squeeze(2))
            boxes.append(F.softplus(_rows(self.box[index](level), 4)))
            points.append(_rows(self.points[index](level), 10))
        return torch.cat(scores, 1), torch.cat(boxes, 1), torch.cat(points, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the nine outputs for one picture."""
        levels = self.pyramid(x)
        scores = [torch.sigmoid(_rows(layer(level), 1)[0]) for layer, level in zip(self.score, levels, strict=True)]
        boxes = [F.softplus(_rows(layer(level), 4)[0]) for layer, level in zip(self.box, levels, strict=True)]
        points = [_rows(layer(level), 10)[0] for layer, level in zip(self.points, levels, strict=True)]
        return (*scores, *boxes, *points)


def _rows(maps: Tensor, width: int) -> Tensor:
    """Turn (B, 2 * width, h, w) into (B, 2hw, width), cell by cell with its two anchors together."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, width)
