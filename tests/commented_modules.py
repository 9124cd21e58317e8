"""Modules with shape comments in the styles that people use. A line with WRONG has a wrong comment."""
# ruff: noqa: F841, RET504, RUF059

import torch
from torch import Tensor, nn


class StudyNote(nn.Module):
    """Attention with comments above the statements, in the style of study notes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.qkv, self.proj = 4, nn.Linear(64, 192), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        # [batch_size, num_patches + 1, total_embed_dim]
        B, N, C = x.shape
        # qkv(): -> [batch_size, num_patches + 1, 2 * total_embed_dim] WRONG
        qkv = self.qkv(x)
        # qkv(): -> [batch_size, num_patches + 1, 3 * total_embed_dim]
        # reshape: -> [batch_size, num_patches + 1, 3, num_heads, embed_dim_per_head]
        # permute: -> [3, batch_size, num_heads, num_patches + 1, embed_dim_per_head]
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        # reshape: -> [batch_size, num_patches + 1, 3, num_heads, embed_dim_per_head]
        # permute: -> [3, batch_size, num_patches + 1, num_heads, embed_dim_per_head] WRONG
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        # [batch_size, num_heads, num_patches + 1, embed_dim_per_head]
        q, k, v = qkv[0], qkv[1], qkv[2]
        # transpose: -> [batch_size, num_heads, embed_dim_per_head, num_patches + 1]
        # @: multiply -> [batch_size, num_heads, num_patches + 1, num_patches + 1]
        attn = q @ k.transpose(-2, -1)
        # @: multiply -> [batch_size, num_heads, num_patches + 1, embed_dim_per_head]
        # reshape: -> [batch_size, num_patches, total_embed_dim] WRONG
        x = (attn @ v).transpose(1, 2).reshape(B, N, C)
        # [batch_size, num_patches + 1, total_embed_dim]
        return self.proj(x)


class Inline(nn.Module):
    """Comments beside statements, with brackets, arrows, words and arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.window_size = 4, (3, 3)
        self.mlp, self.conv = nn.Linear(64, 256), nn.Conv2d(64, 64, 2, 2)

    def forward(
        self,
        x: Tensor,  # (B, N, C)
        y: Tensor,  # (B, C, N) WRONG
    ) -> Tensor:
        B, N, C = x.shape
        H = W = 12
        Wh, Ww = 3, 3
        h, d = self.num_heads, C // self.num_heads
        nW = H // Wh * (W // Ww)
        a = self.mlp(x)  # B, N, 4C
        a = self.mlp(x)  # B, N, 2C WRONG

        a = self.mlp(x)  # BxNx4C
        a = self.mlp(x)  # BxNxC WRONG

        a = self.mlp(x)  # output: B x N x 4*C
        a = self.mlp(x)  # output: B x N x C WRONG

        a = self.mlp(x)  # shape = [B, N, 4*C]
        a = self.mlp(x)  # shape = [B, N, C] WRONG

        a = self.mlp(x)  # torch.Size([2, 144, 256])
        a = self.mlp(x)  # torch.Size([2, 144, 64]) WRONG

        y = x.transpose(1, 2)  # (B, N, C) => (B, C, N)
        y = x.transpose(1, 2)  # [B, C, N] → [B, N, C] WRONG

        y = y.reshape(B, C, H, W)  # 输出形状为 [B, C, H, W]
        y = y.reshape(B, C, H, W)  # B C N -> B H W C WRONG

        y = y.reshape(B, C, H, W)  # y: [B, H, W, C] WRONG
        w = x.view(B, H // Wh, Wh, W // Ww, Ww, C)  # (B, H//Wh, Wh, W//Ww, Ww, C)

        w = x.view(B, H // Wh, Wh, W // Ww, Ww, C)  # (B, H//Wh, W//Ww, Wh, Ww, C) WRONG
        w = w.transpose(2, 3).reshape(-1, Wh * Ww, C)  # (B*nW, window_size[0] * window_size[1], C)

        w = w.reshape(-1, Wh * Ww, C)  # (nW, Wh*Ww, C) WRONG
        z = self.conv(self.conv(y)).flatten(2).transpose(1, 2)  # (B, (H/4)*(W/4), C)

        z = self.conv(self.conv(y)).flatten(2).transpose(1, 2)  # (B, (H/2)*(W/2), C) WRONG
        p = x.mean(1)  # from (B, N, C) to (B, C)

        p = x.mean(1)  # the pooled tokens, [B, 1, C] WRONG
        p = x.mean(1)  # was (B, N, C)
        return z


class Several(nn.Module):
    """Several shapes in one comment, and comments inside a statement."""

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        h, d = 4, C // 4
        # q, k: (B, N, h, d) WRONG
        q, k = x.reshape(B, N, h, d).transpose(1, 2), x.reshape(B, N, h, d).transpose(1, 2)
        # q: (B, h, N, d)
        # k: (B, h, d, N) WRONG
        s = q @ k.transpose(-2, -1)
        o, s = (s @ q).transpose(1, 2).reshape(B, N, C), s  # output: (B, N, C), attention: (B, h, N, N)
        o, s = o, s  # (B, N, C), (B, N, N) WRONG
        t = (
            x
            .reshape(B, N, h, d)  # (B, N, h, d)
            .permute(0, 2, 1, 3)  # (B, N, h, d) WRONG
        )  # fmt: skip
        c = torch.cat(
            [
                x,  # (B, C, N) WRONG
                o,
            ],
            dim=1,
        )  # (B, 2*N, C)
        return s  # attention, (B, N, N) WRONG


class Products(nn.Module):
    """Products of matrices and of numbers, beside a variable `x`, as in nanoGPT."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(64, 192)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        a = self.qkv(x)  # B, T, 3 x C
        a = self.qkv(x)  # B, T, 2 x C WRONG

        a = self.qkv(x)  # [2, 9, 3*64]
        a = self.qkv(x)  # [2, 9, 2*64] WRONG

        a = self.qkv(x)  # forme : (B, T, 3*C)
        a = self.qkv(x)  # forme : (B, T, C) WRONG

        q, k, v = a.view(B, T, 3, 4, 16).permute(2, 0, 3, 1, 4)  # (B, nh, T, hs)

        s = q @ k.transpose(-2, -1)  # (B, nh, T, hs) x (B, nh, hs, T) -> (B, nh, T, T)

        y = s.softmax(-1) @ v  # (B, nh, T, T) x (B, nh, T, hs) -> (B, nh, T, hs)

        y = s.softmax(-1) @ v  # (B, nh, T, T) x (B, nh, T, hs) -> (B, T, nh, hs) WRONG

        return y.transpose(1, 2).reshape(B, T, C)


class NoShapes(nn.Module):
    """Comments that are not shapes, or shapes of something else than the result."""

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        H, W = 12, 12
        xy = x.new_zeros(5, 2)  # x, y
        boxes = x.new_zeros(5, 4)  # (x1, y1, x2, y2)

        boxes = x.new_zeros(5, 4)  # xyxy format, (left, top, right, bottom)
        boxes = x.new_zeros(5, 4)  # (cx, cy, w, h)

        s = torch.arange(4) + 0.5  # shift x
        p = x.mean(1)  # pool h

        p = x.mean(1)  # dim = 0
        p = x.mean(1)  # (optional)

        p = x.mean(1)  # average over (N, C) if needed
        p = x.mean(1)  # same as x.view(B, N, C).mean(1)
        # convert if necessary (B, C, H, W) -> (B, C, 1, H, W)
        p = x.mean(1)
        # num_channels -> the channels of the images, which are [0, 1]
        p = x.mean(1)
        return p


class Reused(nn.Module):
    """Names that only comments use, for several sizes, and a name of the code that means something else in a comment."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 20, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        num_channels = x.shape[1]
        assert num_channels
        y = x + 1  # (N, C, H, W)
        y = y * 2  # (N, C, H, W)

        y = self.conv(y)  # (N, C, H, W)
        z = y.permute(0, 2, 3, 1)  # (N, H, W, C)

        z = y.permute(0, 2, 3, 1)  # (N, C, H, W) WRONG
        return y.permute(0, 2, 3, 1)  # (batch, height, width, num_channels)


class Detection(nn.Module):
    """Comments in the style of a detection head: anchors, boxes and masks."""

    def __init__(self) -> None:
        super().__init__()
        self.topk, self.n_max_boxes, self.nc, self.no = 3, 5, 7, 12

    def forward(self, x: Tensor) -> Tensor:
        bs, _, ny, nx = x.shape  # x(bs,255,20,20) to x(bs,3,20,20,85)
        sx = torch.arange(nx) + 0.5  # shift x
        anchors = torch.stack((sx, sx), -1)  # (x, y)
        x_cat = x.flatten(2)  # (b, no, a)

        # Assigned boxes, (b, h*w, 4)
        boxes = x_cat[:, :4].transpose(1, 2)
        cx, cy, w, h = boxes.unbind(-1)  # center x, center y, width, height
        lt = boxes[..., :2] - boxes[..., 2:] / 2  # top left (x1, y1)
        xyxy = torch.cat((lt, lt), -1)  # xyxy bbox, (b, h*w, 4)

        scores = x_cat[:, 4:9]  # (b, max_num_obj, h*w)
        metrics, idxs = torch.topk(scores, self.topk, dim=-1)  # (b, max_num_obj, topk)
        mask = metrics.sum(-1)  # (b, max_num_obj)
        fg_mask = scores.sum(-2)  # (b, n_max_boxes, h*w) -> (b, h*w)

        ind = torch.zeros(2, bs, self.n_max_boxes)  # 2, b, max_num_obj
        ind[0] = torch.arange(bs).view(-1, 1).expand(-1, self.n_max_boxes)  # b, max_num_obj
        both = (fg_mask.unsqueeze(1) > 1).expand(-1, self.n_max_boxes, -1)  # (b, n_max_boxes, h*w)
        b, c, a = x_cat.shape  # batch, channels, anchors
        return x_cat.view(b, 3, c // 3, a)  # (b, 3, c//3, a)


class WordsBefore(nn.Module):
    """A word before the brackets, which together look like a call, and `out` for a result that has another name."""

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        out = x.flatten(1)  # out: (B, N*C)
        y = x.transpose(1, 2)  # out: (B, C, N)
        z = x.transpose(1, 2)  # out: (B, N, C, 1) WRONG
        # 输出形状为 (B, N, N)
        scores = x @ y
        # out: (B, C, N)
        z = x.transpose(1, 2)

        # 输出形状为 (B, N, N, 1) WRONG
        scores = x @ z

        # output (B, N, C)
        return scores @ x


class NamedOperations(nn.Module):
    """Axes in brackets after the name of an operation may be its arguments."""

    def scale(self, x: Tensor, *_: int) -> Tensor:
        return x * 2

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        y = x * 2  # scale (B, C)
        y = self.scale(x, B, C)  # scale (B, C)
        # flatten (N, C)
        y = x.flatten(1)

        y = x.flatten(1)  # flatten (N, C)
        y = x.flatten(1)  # merge (N, C)
        y = x.flatten(1)  # flatten: (N, C) WRONG

        y = x.transpose(1, 2)  # transpose (B, N, C) WRONG
        return y


class OtherWords(nn.Module):
    """Words for a shape in other languages, and asterisks between axes."""

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        y = x.transpose(1, 2)  # taille: (B, C, N)
        y = x.transpose(1, 2)  # taille : (B, N, C) WRONG
        y = x.transpose(1, 2)  # Größe: (B, N, C) WRONG
        y = x.transpose(1, 2)  # B*C*N

        w = x.transpose(1, 2) if "WRONG" else x  # B*N*C

        z = y.flatten()  # B*C*N
        z = y.flatten(1)  # B*C*N
        scores = x @ y  # N*N*C
        return scores + z.mean() + w.mean()
