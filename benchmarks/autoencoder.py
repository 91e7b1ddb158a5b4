"""What the fast `deconv` saves, forward and backward, batch 256: beside nearest upsampling and a convolution, layer by layer,
and in a training epoch of the lesson's autoencoder (1-2-4-8 channels, 60,000 images) beside the same model in plain PyTorch.

Two threads, and one for the epoch too. Ratios are between least times of `rounds` interleaved rounds, nine of the epochs. The plain loop has its images in memory as float32 and takes
its batches by `DataLoader(TensorDataset)`; ours is `TensorDL` and the Learner with device, loss and progress, and the model has its
images batch last inside, as in the lessons *layout* and *autoencoder*. Both use the fused Adam."""
import argparse, io
from contextlib import redirect_stdout
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

from miniai.autoencoder import deconv
from miniai.conv import conv
from miniai.datasets import DataLoaders
from miniai.events import DeviceCB, ReconstructCB
from miniai.layout import BatchFirst, BatchLast, ThinConv2d
from miniai.learner import Learner
from miniai.progress import MetricsCB, ProgressCB
from report import interleaved, report

adam   = partial(optim.Adam, fused=True)
asked  = [(4, 2, 8), (2, 1, 16), (32, 16, 14), (16, 8, 16)]
others = [(8, 4, 4), (1, 1, 32), (3, 3, 32), (16, 1, 14), (64, 32, 7), (64, 64, 16), (128, 64, 4)]

def layer(ni, nf, n, fast):
    "One forward and backward pass of a `deconv`, for a batch of 256."
    torch.manual_seed(0)
    m, x = deconv(ni, nf, act=None, fast=fast), torch.randn(256, ni, n, n, requires_grad=True)
    back = torch.randn_like(m(x))
    return lambda: torch.autograd.grad(m(x), [x, *m.parameters()], back)

def model(ours):
    "The first autoencoder of the lesson *autoencoder*, as it stands there or in plain PyTorch."
    torch.manual_seed(0)
    layer, there, back = (ThinConv2d, [BatchLast()], [BatchFirst()]) if ours else (nn.Conv2d, [], [])
    down = [conv(i, o, layer=layer) for i, o in ((1, 2), (2, 4), (4, 8))]
    up = [deconv(8, 4, fast=ours), deconv(4, 2, fast=ours), deconv(2, 1, act=None, fast=ours)]
    return nn.Sequential(nn.ZeroPad2d(2), *there, *down, *up, *back, nn.ZeroPad2d(-2), nn.Sigmoid())

def plain_epoch(images, bs):
    m, dl = model(False), DataLoader(TensorDataset(images.float()/255), bs, shuffle=True)
    opt = adam(m.parameters(), 1e-3)
    def run():
        for xb, in dl:
            F.mse_loss(m(xb), xb).backward()
            opt.step()
            opt.zero_grad()
    return run

def our_epoch(images, bs):
    dls = DataLoaders.from_tensors((images, torch.zeros(len(images))), (images[:bs], torch.zeros(bs)), bs=bs)
    cbs = [ReconstructCB(), DeviceCB('cpu'), MetricsCB(), ProgressCB()]
    learn = Learner(model(True), dls, F.mse_loss, 1e-3, cbs, adam)
    def run():
        with redirect_stdout(io.StringIO()): learn.fit(1, valid=False)
    return run

def main(rounds, n):
    torch.set_num_threads(2)
    rows = []
    for shape in asked + others:
        t = interleaved(rounds, plain=layer(*shape, False), fast=layer(*shape, True))
        ni, nf, side = shape
        maps = f'{ni} → {nf}, {side}×{side} → {2*side}×{2*side}'
        rows.append(f"| {maps} | {t['plain'].told()} | {t['fast'].told()} | **{t['plain']/t['fast']:.1f}** |")
    images = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8)
    epochs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        t = interleaved(min(9, rounds), plain=plain_epoch(images, 256), ours=our_epoch(images, 256))
        epochs.append(f"| {threads} | {t['plain'].told(1)} | {t['ours'].told(1)} | **{t['plain']/t['ours']:.1f}** |")
    report('autoencoder', '`deconv`: upsampling and convolution at the low resolution', '\n'.join([
        f'Least time of n = {rounds}, in brackets mean ± standard deviation.', '',
        '| channels and side | plain, ms | fast, ms | times faster |', '|---|---|---|---|', *rows, '',
        f"A training epoch of the lesson's autoencoder, {n:,} images, n = {min(9, rounds)}:", '',
        '| threads | plain PyTorch, s | miniai, s | times faster |', '|---|---|---|---|', *epochs]))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--rounds', type=int, default=31)
    ap.add_argument('--images', type=int, default=60_000)
    args = ap.parse_args()
    main(args.rounds, args.images)
