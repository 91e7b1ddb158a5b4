"""Convolutions as one product: `im2col` against `F.unfold`, `conv2d` against `F.unfold` + product, a comprehension and `F.conv2d`.

Float32, without gradients. Each ratio is between least times of interleaved rounds, so above 1 ours is faster."""
import torch
import torch.nn.functional as F

from miniai.conv import apply_kernel, conv_out_size
from miniai.im2col import conv2d, im2col
from report import interleaved, report

torch.set_num_threads(2)
torch.manual_seed(42)

# images, channels, side, kernel side, stride, padding, kernels
shapes = [(1, 1, 28, 3, 1, 0, 8), (1, 1, 28, 5, 1, 2, 8), (1, 16, 28, 3, 1, 1, 16), (16, 16, 14, 3, 1, 1, 32), (64, 1, 28, 3, 1, 1, 8),
          (64, 1, 28, 5, 2, 2, 8), (64, 8, 14, 3, 2, 1, 16), (64, 16, 28, 3, 1, 1, 16), (64, 64, 28, 1, 1, 0, 64), (64, 64, 28, 3, 2, 1, 64),
          (64, 64, 28, 3, 1, 1, 64), (64, 64, 28, 5, 1, 2, 64)]
tiny = [(1, 1, 28, 3, 1, 1, 8), (1, 1, 28, 3, 2, 1, 8)]      # padded, but so small that calls from Python take most of the time

def unfold_product(x, weight, bias, stride, padding):
    size = [conv_out_size(n, weight.shape[-1], stride, padding) for n in x.shape[2:]]
    cols = F.unfold(x, weight.shape[-1], stride=stride, padding=padding)
    return (weight.flatten(1)@cols + bias[:,None]).view(len(x), len(weight), *size)

def measure(n, c, side, ks, stride, padding, nf):
    "Least seconds of each way."
    x, w, b, args = torch.rand(n, c, side, side), torch.randn(nf, c, ks, ks), torch.randn(nf), (stride, padding)
    assert torch.equal(im2col(x, ks, *args), F.unfold(x, ks, stride=stride, padding=padding))
    for f in (conv2d, unfold_product): assert torch.allclose(f(x, w, b, *args), F.conv2d(x, w, b, *args), rtol=1e-3, atol=1e-2)
    rounds = min(2000, max(5, 50_000_000//(x.numel()*ks**2//stride**2)))
    return interleaved(rounds, unfold=lambda: F.unfold(x, ks, stride=stride, padding=padding), im2col=lambda: im2col(x, ks, *args),
                       product=lambda: unfold_product(x, w, b, *args), ours=lambda: conv2d(x, w, b, *args),
                       torch=lambda: F.conv2d(x, w, b, *args))

def row(shape, t):
    n, c, side, ks, stride, padding, nf = shape
    us = lambda s: f'{s*1e6:,.0f}'
    return (f'| {n}×{c}×{side}×{side} | {ks}×{ks}, stride {stride}, padding {padding} | {nf} | {us(t["im2col"])} | **{t["unfold"]/t["im2col"]:.1f}** '
            f'| {us(t["ours"])} | **{t["product"]/t["ours"]:.1f}** | {t["torch"]/t["ours"]:.2f} |')

im, k = torch.rand(28, 28), torch.randn(3, 3)
one, weight = im[None,None], k[None,None]
def comprehension(): return torch.tensor([[apply_kernel(im, k, i, j) for j in range(1, 27)] for i in range(1, 27)])

with torch.no_grad():
    t = interleaved(5, slow=comprehension) | interleaved(2000, ours=lambda: conv2d(one, weight))
    assert torch.allclose(comprehension(), conv2d(one, weight)[0,0], atol=1e-5)
    rows, small = [[row(o, measure(*o)) for o in some] for some in (shapes, tiny)]

head = '''| images | kernels | number | `im2col`, µs | `F.unfold` / `im2col` | `conv2d`, µs | `F.unfold` + product / `conv2d` | `F.conv2d` / `conv2d` |
|---|---|---|---|---|---|---|---|
'''
report('conv', 'A convolution as one product', f'''A 3×3 kernel on one image of 28×28 pixels: `conv2d` takes {t["ours"]*1e6:.0f} µs, the comprehension over `apply_kernel`
{t["slow"]*1e3:.0f} ms, **{t["slow"]/t["ours"]:.0f} times** as long.

{head}''' + '\n'.join(rows) + '''

One small padded image: three calls from Python against one.

''' + head + '\n'.join(small))
