"""Convolutions as one product: `im2col` against `F.unfold`, `conv2d` against `F.unfold` + product, a comprehension and `F.conv2d`.

Float32, two threads, without gradients. Each ratio is between least times of interleaved rounds, so above 1 ours is faster."""
import argparse

import torch
import torch.nn.functional as F

from miniai.conv import apply_kernel, conv_out_size
from miniai.im2col import conv2d, im2col
from report import interleaved, report

# images, channels, side, kernel side, stride, padding, kernels
shapes = [(1, 1, 28, 3, 1, 0, 8), (1, 1, 28, 5, 1, 2, 8), (1, 16, 28, 3, 1, 1, 16), (16, 16, 14, 3, 1, 1, 32), (64, 1, 28, 3, 1, 1, 8),
          (64, 1, 28, 5, 2, 2, 8), (64, 8, 14, 3, 2, 1, 16), (64, 16, 28, 3, 1, 1, 16), (64, 64, 28, 1, 1, 0, 64), (64, 64, 28, 3, 2, 1, 64),
          (64, 64, 28, 3, 1, 1, 64), (64, 64, 28, 5, 1, 2, 64)]
tiny = [(1, 1, 28, 3, 1, 1, 8), (1, 1, 28, 3, 2, 1, 8)]      # padded, but so small that calls from Python take most of the time

def unfold_product(x, weight, bias, stride, padding):
    size = [conv_out_size(n, weight.shape[-1], stride, padding) for n in x.shape[2:]]
    cols = F.unfold(x, weight.shape[-1], stride=stride, padding=padding)
    return (weight.flatten(1)@cols + bias[:,None]).view(len(x), len(weight), *size)

def measure(most, n, c, side, ks, stride, padding, nf):
    "The times of each way: many rounds of what is fast, few of what is slow, `most` at most."
    x, w, b = torch.rand(n, c, side, side), torch.randn(nf, c, ks, ks), torch.randn(nf)
    args = stride, padding
    assert torch.equal(im2col(x, ks, *args), F.unfold(x, ks, stride=stride, padding=padding))
    for f in (conv2d, unfold_product): assert torch.allclose(f(x, w, b, *args), F.conv2d(x, w, b, *args), rtol=1e-3, atol=1e-2)
    rounds = min(most, max(5, 50_000_000//(x.numel()*ks**2//stride**2)))
    return interleaved(rounds, unfold=lambda: F.unfold(x, ks, stride=stride, padding=padding), im2col=lambda: im2col(x, ks, *args),
                       product=lambda: unfold_product(x, w, b, *args), ours=lambda: conv2d(x, w, b, *args),
                       torch=lambda: F.conv2d(x, w, b, *args))

def row(shape, t):
    n, c, side, ks, stride, padding, nf = shape
    us = lambda k: t[k].told(1e6, 0)
    return (f'| {n}×{c}×{side}×{side} | {ks}×{ks}, stride {stride}, padding {padding} | {nf} | {t["ours"].n} | {us("im2col")} '
            f'| **{t["unfold"]/t["im2col"]:.1f}** | {us("ours")} | **{t["product"]/t["ours"]:.1f}** | {t["torch"]/t["ours"]:.2f} |')

im, k = torch.rand(28, 28), torch.randn(3, 3)
def comprehension(): return torch.tensor([[apply_kernel(im, k, i, j) for j in range(1, 27)] for i in range(1, 27)])

head = '''| images | kernels | number | n | `im2col`, µs | `F.unfold` / `im2col` | `conv2d`, µs | `F.unfold` + product / `conv2d` | `F.conv2d` / `conv2d` |
|---|---|---|---|---|---|---|---|---|
'''

@torch.no_grad()
def main(most):
    torch.set_num_threads(2)
    torch.manual_seed(42)
    one, weight = im[None,None], k[None,None]
    assert torch.allclose(comprehension(), conv2d(one, weight)[0,0], atol=1e-5)
    t = interleaved(min(most, 15), slow=comprehension) | interleaved(most, ours=lambda: conv2d(one, weight))
    rows, small = [[row(o, measure(most, *o)) for o in some] for some in (shapes, tiny)]
    report('conv', 'A convolution as one product', f'''Times are the least of n, in brackets mean ± standard deviation.

A 3×3 kernel on one image of 28×28 pixels: `conv2d` takes {t["ours"].told(1e6, 0)} µs (n = {t["ours"].n}), the comprehension over
`apply_kernel` {t["slow"].told(digits=1)} ms (n = {t["slow"].n}), **{t["slow"]/t["ours"]:.0f} times** as long.

{head}''' + '\n'.join(rows) + '''

One small padded image: three calls from Python against one.

''' + head + '\n'.join(small))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--rounds', type=int, default=2000, help='at most so many of each')
    main(ap.parse_args().rounds)
