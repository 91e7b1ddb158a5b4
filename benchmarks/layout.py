"""Convolutions of thin networks with the batch innermost in memory, beside plain `F.conv2d` and beside `channels_last`.

Forward and backward, float32, 3×3 kernels with padding 1. Each tensor lies in the layout of its way from the start, gradients
too. Each ratio is between least times of `rounds` interleaved rounds, so above 1 ours is faster."""
import argparse

import torch
import torch.nn.functional as F

from miniai.layout import batch_last, thin_conv2d
from report import interleaved, report

# images, channels in and out, side, stride
shapes = [(256, 1, 2, 32, 2), (256, 2, 4, 16, 2), (256, 4, 8, 8, 2), (256, 2, 4, 16, 1), (256, 8, 16, 16, 2), (256, 1, 8, 28, 1),
          (256, 16, 32, 16, 2), (256, 32, 64, 8, 2), (64, 2, 4, 16, 2), (8, 2, 4, 16, 2), (8, 16, 32, 16, 2)]

def step(f, x, weight, bias, layout, stride):
    "One pass forward and backward, with everything in one layout."
    x, weight = layout(x).requires_grad_(x.shape[1]>1), weight.clone().requires_grad_()      # first layers need no gradient of x
    if layout is channels_last: weight = layout(weight.detach()).requires_grad_()
    bias = bias.clone().requires_grad_()
    ins, back = [o for o in (x, weight, bias) if o.requires_grad], layout(torch.randn_like(f(x, weight, bias, stride, 1)))
    return lambda: torch.autograd.grad(f(x, weight, bias, stride, 1), ins, back)

def channels_last(x): return x.detach().clone(memory_format=torch.channels_last)
def as_usual(x): return x.detach().contiguous()

def measure(rounds, n, ni, nf, side, stride):
    "The times of each way."
    torch.manual_seed(0)
    x, weight, bias = torch.randn(n, ni, side, side), torch.randn(nf, ni, 3, 3)/3, torch.randn(nf)
    ours, torchs = thin_conv2d(batch_last(x), weight, bias, stride, 1), F.conv2d(x, weight, bias, stride, 1)
    assert torch.allclose(ours, torchs, rtol=1e-3, atol=1e-4)
    return interleaved(rounds, plain=step(F.conv2d, x, weight, bias, as_usual, stride),
                       last=step(F.conv2d, x, weight, bias, channels_last, stride),
                       thin=step(thin_conv2d, x, weight, bias, batch_last, stride))

def table(rounds, threads):
    torch.set_num_threads(threads)
    for shape in shapes:
        (n, ni, nf, side, stride), t = shape, measure(rounds, *shape)
        ms = ' | '.join(t[k].told() for k in ('plain', 'last', 'thin'))
        yield (f'| {threads} | {n}×{ni}×{side}×{side} | {nf}, stride {stride} | {ms} | **{t["plain"]/t["thin"]:.1f}** '
               f'| {t["last"]/t["thin"]:.1f} |')

def main(rounds):
    rows = [row for threads in (1, 2) for row in table(rounds, threads)]
    report('layout', '`thin_conv2d`: the batch innermost in memory', '\n'.join([
        f'Least time of n = {rounds}, in brackets mean ± standard deviation.', '',
        '| threads | images | kernels | `F.conv2d`, ms | with `channels_last`, ms | `thin_conv2d`, ms | plain / thin | `channels_last` / thin |',
        '|---|---|---|---|---|---|---|---|', *rows]))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--rounds', type=int, default=31)
    main(ap.parse_args().rounds)
